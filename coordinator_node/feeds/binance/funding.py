"""Funding of Binance's USD-M perpetuals: the last settlement of each interval of the granularity that has one.

`ts_event` is the settlement's time, `funding_rate` the rate that was paid then, `mark_price` the mark price it was
paid on, where the venue has kept it. A symbol settles every eight hours or oftener, so most intervals have no record.
What is paid is known from the venue's list of past settlements; the stream of mark prices tells when the next one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from coordinator_node.feeds.binance.client import BinanceClient
from coordinator_node.feeds.binance.kind import PAGE_ROWS, SOURCE, BinanceKind, Listed, readable
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.micros import from_epoch_micros
from coordinator_node.feeds.venue.fields import entry, milliseconds, number
from coordinator_node.feeds.venue.sampled_history import Pages, sampled_history
from coordinator_node.feeds.venue.sampling import Bar, Observation, floor_ms
from coordinator_node.feeds.venue.session import Announced, Heard, History

LISTED_MS = 60_000
"""How long after a settlement the venue has surely listed it."""

RECHECK_SECONDS = 600.0
"""How often the list is read between settlements; the venue grants 500 such requests in five minutes."""


def settlement_of(row: object) -> Observation:
    """A row of /fapi/v1/fundingRate. Its mark price is empty in rows of before 2023.

    Raises:
        UnreadableError: it is no such row.
    """
    time_ms = milliseconds(entry(row, "fundingTime"), "fundingTime")
    mark_price = entry(row, "markPrice") if isinstance(row, Mapping) and row.get("markPrice") else None
    return Observation(
        time_ms=time_ms,
        order=time_ms,
        price=number(entry(row, "fundingRate"), "fundingRate"),
        detail={} if mark_price is None else {"mark_price": float(number(mark_price, "markPrice"))},
    )


class Funding(BinanceKind):
    """Settlements, sampled."""

    futures = True
    settle_ms = LISTED_MS

    def __init__(self, granularity: str, poll_seconds: float) -> None:
        super().__init__(granularity, poll_seconds)
        self.quiet_seconds = max(poll_seconds, RECHECK_SECONDS)

    def stream_name(self, symbol: str) -> str:
        """The stream of mark prices, which is the perpetuals' stream of funding too."""
        return f"{symbol.lower()}@markPrice"

    def heard(self, subject: str, payload: Mapping[str, Any], venue_ms: int) -> Heard | None:
        """When the next settlement is."""
        now_ms = milliseconds(entry(payload, "E"), "event time")
        next_ms = milliseconds(entry(payload, "T"), "next funding time")
        return Announced(subject, (next_ms - now_ms) / 1000)

    async def history(
        self, client: BinanceClient, listed: Listed, start_ms: int, end_ms: int | None, limit: int | None
    ) -> History:
        """All settlements of the range, sampled."""
        now_ms = await client.now_ms()
        return await sampled_history(
            self._pages(client, listed, floor_ms(start_ms, self.size_ms)),
            size_ms=self.size_ms,
            start_ms=start_ms,
            end_ms=end_ms,
            settled_ms=now_ms - self.settle_ms,
            limit=limit,
            record=lambda bar: self.record(listed.subject, bar),
        )

    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """The interval's last settlement."""
        return FeedDataRecord(
            source=SOURCE,
            subject=subject,
            kind=FeedDataKind.FUNDING,
            granularity=self.granularity,
            ts_event=from_epoch_micros(bar.last.time_ms * 1000),
            values={"funding_rate": float(bar.close), **bar.last.detail},
        )

    async def _pages(self, client: BinanceClient, listed: Listed, start_ms: int) -> Pages:
        what = f"funding rates of {listed.symbol}"
        while True:
            rows = await client.rows(what, partial(_settled_since, listed.symbol, start_ms), listed.subject)
            found = sorted(readable(rows, settlement_of, what), key=lambda each: each.order)
            yield found
            if len(rows) < PAGE_ROWS or not found or found[-1].time_ms < start_ms:
                return
            start_ms = found[-1].time_ms + 1


async def _settled_since(symbol: str, start_ms: int, api: Any) -> Any:
    return await api.futures_funding_rate(symbol=symbol, startTime=start_ms, limit=PAGE_ROWS)
