"""Candles of Binance's spot market: its klines, open time and all, once the venue calls them closed.

The running candle is never handed over. `values` are open, high, low, close and volume (in the base asset).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from coordinator_node.feeds.binance.client import BinanceClient
from coordinator_node.feeds.binance.kind import PAGE_ROWS, SOURCE, BinanceKind, Listed, readable
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.errors import RetryableFeedError
from coordinator_node.feeds.micros import from_epoch_micros
from coordinator_node.feeds.venue.fields import UnreadableError, entry, item, milliseconds, number
from coordinator_node.feeds.venue.sampled_history import record_ms
from coordinator_node.feeds.venue.sampling import Bar, ceil_ms, floor_ms
from coordinator_node.feeds.venue.session import Closed, Heard, History

COLUMNS = ("open", "high", "low", "close", "volume")
EVENT_KEYS = ("o", "h", "l", "c", "v")


@dataclass(frozen=True, slots=True)
class Kline:
    """One candle as the venue gives it, running or closed."""

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


def kline_of_row(row: object) -> Kline:
    """A row of /api/v3/klines: open time, open, high, low, close, volume, close time and more.

    Raises:
        UnreadableError: it is no such row.
    """
    open_ms = milliseconds(item(row, 0, "open time"), "open time")
    return Kline(open_ms, *(number(item(row, index + 1, name), name) for index, name in enumerate(COLUMNS)))


def kline_of_event(payload: Mapping[str, Any]) -> tuple[Kline, bool]:
    """A message of <symbol>@kline_<interval>: the candle, and whether the venue calls it closed.

    Raises:
        UnreadableError: it is no such message.
    """
    body = entry(payload, "k")
    open_ms = milliseconds(entry(body, "t"), "open time")
    closed = entry(body, "x")
    if not isinstance(closed, bool):
        raise UnreadableError(f"'x' is {closed!r}, expected true or false")
    return Kline(open_ms, *(number(entry(body, key), key) for key in EVENT_KEYS)), closed


class Candles(BinanceKind):
    """Klines of one interval; every granularity is an interval of the venue by the same name."""

    def stream_name(self, symbol: str) -> str:
        """The kline stream."""
        return f"{symbol.lower()}@kline_{self.granularity}"

    def heard(self, subject: str, payload: Mapping[str, Any], venue_ms: int) -> Heard | None:
        """A closed candle; the running one says nothing."""
        kline, closed = kline_of_event(payload)
        if not closed:
            return None
        self._on_grid(kline)
        return Closed(subject, kline.open_ms, self._record(subject, kline))

    async def history(
        self, client: BinanceClient, listed: Listed, start_ms: int, end_ms: int | None, limit: int | None
    ) -> History:
        """Klines page after page, each page from the last candle of the one before on."""
        settled_ms = floor_ms(await client.now_ms() - self.settle_ms, self.size_ms)
        cursor = ceil_ms(start_ms, self.size_ms)
        stop = None if end_ms is None else ceil_ms(end_ms, self.size_ms)
        records: list[FeedDataRecord] = []
        while stop is None or cursor < stop:
            wanted = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(records) + 1)
            klines, last_page = await self._page(client, listed, cursor, stop, wanted)
            # A candle is over once the venue has a later one; the newest needs the clock.
            newest = klines[-1].open_ms if klines else cursor
            over = max(newest, settled_ms if last_page else min(newest + self.size_ms, settled_ms))
            until = over if stop is None else min(over, stop)
            records += [self._record(listed.subject, each) for each in klines if each.open_ms < until]
            if limit is not None and len(records) >= limit:
                return History(records[:limit], record_ms(records[limit - 1]) + self.size_ms)
            cursor = max(cursor, until)
            if last_page:
                break
        return History(records, cursor)

    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """Not used: the venue makes the candles."""
        raise NotImplementedError("Binance's candles are not sampled")

    async def _page(
        self, client: BinanceClient, listed: Listed, start_ms: int, stop_ms: int | None, wanted: int
    ) -> tuple[list[Kline], bool]:
        """Candles that open at or after `start_ms`, ascending, each once, and whether there are no more.

        One that opens at `stop_ms` is asked for too: it shows that the one before is over.
        """
        bounds = {"startTime": start_ms} if stop_ms is None else {"startTime": start_ms, "endTime": stop_ms}
        what = f"{self.granularity} klines of {listed.symbol}"
        rows = await client.rows(
            what,
            lambda api: api.get_klines(symbol=listed.symbol, interval=self.granularity, limit=wanted, **bounds),
            listed.subject,
        )
        found = {each.open_ms: each for each in readable(rows, self._kline, what) if each.open_ms >= start_ms}
        klines = [found[open_ms] for open_ms in sorted(found)]
        last_page = len(rows) < wanted
        if not last_page and (not klines or klines[-1].open_ms == start_ms):
            begin = from_epoch_micros(start_ms * 1000)
            raise RetryableFeedError(f"Binance's answer to {what} has nothing to go on with after {begin}")
        return klines, last_page

    def _kline(self, row: object) -> Kline:
        kline = kline_of_row(row)
        self._on_grid(kline)
        return kline

    def _on_grid(self, kline: Kline) -> None:
        if kline.open_ms % self.size_ms:
            raise UnreadableError(f"open time {kline.open_ms} is no start of a {self.granularity} candle")

    def _record(self, subject: str, kline: Kline) -> FeedDataRecord:
        return FeedDataRecord(
            source=SOURCE,
            subject=subject,
            kind=FeedDataKind.CANDLE,
            granularity=self.granularity,
            ts_event=from_epoch_micros(kline.open_ms * 1000),
            values={name: float(getattr(kline, name)) for name in COLUMNS},
        )
