"""Ticks of Binance's spot market: the last trade of each interval of the granularity that has one.

`ts_event` is that trade's time, `price` its price, `volume` what was traded in the interval (in the base asset); the
trade's id is in the metadata. Trades are the venue's aggregate trades, whose ids are consecutive, so that a trade that
was not seen is known to be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator_node.feeds.binance.candles import kline_of_row
from coordinator_node.feeds.binance.client import BinanceClient
from coordinator_node.feeds.binance.kind import PAGE_ROWS, SOURCE, BinanceKind, Listed, readable
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.errors import RetryableFeedError
from coordinator_node.feeds.micros import from_epoch_micros
from coordinator_node.feeds.venue.fields import entry, integer, milliseconds, number
from coordinator_node.feeds.venue.sampled_history import Pages, sampled_history
from coordinator_node.feeds.venue.sampling import Bar, Observation, floor_ms
from coordinator_node.feeds.venue.session import Heard, History, Observed

SEARCH_MS = 3_600_000
"""The longest range of time in which the venue looks for trades at once."""


def trade_of(row: object) -> Observation:
    """An aggregate trade, of /api/v3/aggTrades or of <symbol>@aggTrade, which name its fields alike.

    Raises:
        UnreadableError: it is no such trade.
    """
    trade_id = integer(entry(row, "a"), "trade id")
    return Observation(
        time_ms=milliseconds(entry(row, "T"), "trade time"),
        order=trade_id,
        follows=trade_id - 1,
        price=number(entry(row, "p"), "price"),
        volume=number(entry(row, "q"), "quantity"),
    )


class Ticks(BinanceKind):
    """Aggregate trades, sampled."""

    def stream_name(self, symbol: str) -> str:
        """The stream of aggregate trades."""
        return f"{symbol.lower()}@aggTrade"

    def heard(self, subject: str, payload: Mapping[str, Any], venue_ms: int) -> Heard | None:
        """One trade."""
        return Observed(subject, trade_of(payload))

    async def history(
        self, client: BinanceClient, listed: Listed, start_ms: int, end_ms: int | None, limit: int | None
    ) -> History:
        """All trades of the range, sampled."""
        now_ms = await client.now_ms()
        return await sampled_history(
            self._pages(client, listed, floor_ms(start_ms, self.size_ms), now_ms if end_ms is None else end_ms),
            size_ms=self.size_ms,
            start_ms=start_ms,
            end_ms=end_ms,
            settled_ms=now_ms - self.settle_ms,
            limit=limit,
            record=lambda bar: self.record(listed.subject, bar),
        )

    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """The interval's last trade."""
        return FeedDataRecord(
            source=SOURCE,
            subject=subject,
            kind=FeedDataKind.TICK,
            granularity=self.granularity,
            ts_event=from_epoch_micros(bar.last.time_ms * 1000),
            values={"price": float(bar.close), "volume": float(bar.volume)},
            metadata={"trade_id": bar.last.order},
        )

    async def _pages(self, client: BinanceClient, listed: Listed, start_ms: int, until_ms: int) -> Pages:
        """Trades from `start_ms` on: the first ones by time, all that follow by id, until there are none."""
        trades: list[Observation] = []
        while not trades and start_ms <= until_ms:
            bounds = {"startTime": start_ms, "endTime": start_ms + SEARCH_MS - 1}
            trades, _ = await self._page(client, listed, bounds)
            start_ms += SEARCH_MS
            if not trades and start_ms <= until_ms:
                start_ms = max(start_ms, await self._listed_from(client, listed, start_ms, until_ms))
        while trades:
            yield trades
            last_id = trades[-1].order
            trades, last_page = await self._page(client, listed, {"fromId": last_id + 1})
            trades = [each for each in trades if each.order > last_id]
            if not trades and not last_page:
                raise RetryableFeedError(f"Binance's trades of {listed.symbol} do not go on after id {last_id}")

    async def _listed_from(self, client: BinanceClient, listed: Listed, start_ms: int, until_ms: int) -> int:
        """When the symbol's candle at a time opens, or its first one later; after `until_ms` where there is none.

        Before the venue listed a symbol there are no trades, which would take long to find hour by hour.
        """
        what = f"the first candle of {listed.symbol}"
        since = floor_ms(start_ms, SEARCH_MS)
        rows = await client.rows(
            what,
            lambda api: api.get_klines(symbol=listed.symbol, interval="1h", startTime=since, limit=1),
            listed.subject,
        )
        return min((kline.open_ms for kline in readable(rows, kline_of_row, what)), default=until_ms + 1)

    async def _page(
        self, client: BinanceClient, listed: Listed, bounds: Mapping[str, int]
    ) -> tuple[list[Observation], bool]:
        """Trades in the order of their ids, each once, and whether there are no more."""
        what = f"trades of {listed.symbol}"
        rows = await client.rows(
            what,
            lambda api: api.get_aggregate_trades(symbol=listed.symbol, limit=PAGE_ROWS, **bounds),
            listed.subject,
        )
        found = {each.order: each for each in readable(rows, trade_of, what)}
        return [found[trade_id] for trade_id in sorted(found)], len(rows) < PAGE_ROWS
