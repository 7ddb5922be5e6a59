"""Depth of Binance's spot market: the last order book of each interval of the granularity, 20 levels a side.

`values`: `bids` and `asks`, lists of [price, quantity] from the best on; `bid` and `ask`, the best prices; `price`, the
middle between them. The venue gives its books no time: `ts_event` is the venue's clock when the book arrived here. It
keeps no past books, so there is no history.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from coordinator_node.feeds.binance.client import BinanceClient
from coordinator_node.feeds.binance.kind import SOURCE, BinanceKind, Listed
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.errors import NoHistoryError, RetryableFeedError
from coordinator_node.feeds.micros import from_epoch_micros
from coordinator_node.feeds.venue.fields import UnreadableError, entry, item, number
from coordinator_node.feeds.venue.sampling import Bar, Observation
from coordinator_node.feeds.venue.session import Heard, History, Observed

LEVELS = 20


def book_of(payload: object, venue_ms: int) -> Observation:
    """An order book, of /api/v3/depth or of <symbol>@depth20, as it was at `venue_ms`.

    Raises:
        UnreadableError: it is no book, or a side of it is empty.
    """
    bids, asks = (_levels(entry(payload, side), side) for side in ("bids", "asks"))
    bid, ask = bids[0][0], asks[0][0]
    return Observation(
        time_ms=venue_ms,
        order=venue_ms,
        price=(bid + ask) / 2,
        detail={
            "bid": float(bid),
            "ask": float(ask),
            "bids": [[float(price), float(quantity)] for price, quantity in bids],
            "asks": [[float(price), float(quantity)] for price, quantity in asks],
        },
    )


def _levels(rows: object, side: str) -> list[tuple[Decimal, Decimal]]:
    if not isinstance(rows, list) or not rows:
        raise UnreadableError(f"{side} is {str(rows)[:80]!r}, expected price levels")
    return [(number(item(row, 0, side), side), number(item(row, 1, side), side)) for row in rows]


class Depth(BinanceKind):
    """Order books, sampled."""

    keeps_history = False

    def stream_name(self, symbol: str) -> str:
        """The stream of the best levels; ten a second where a tenth of a second matters."""
        return f"{symbol.lower()}@depth{LEVELS}@100ms" if self.size_ms == 1000 else f"{symbol.lower()}@depth{LEVELS}"

    def heard(self, subject: str, payload: Mapping[str, Any], venue_ms: int) -> Heard | None:
        """One book."""
        return Observed(subject, book_of(payload, venue_ms))

    async def look(self, client: BinanceClient, listed: Listed, venue_ms: int) -> list[Heard]:
        """The book as it is now."""
        what = f"the order book of {listed.symbol}"
        answer = await client.ask(
            what, lambda api: api.get_order_book(symbol=listed.symbol, limit=LEVELS), listed.subject
        )
        try:
            return [Observed(listed.subject, book_of(answer, venue_ms))]
        except UnreadableError as error:
            raise RetryableFeedError(f"Binance's answer to {what} cannot be read: {error}") from error

    async def history(
        self, client: BinanceClient, listed: Listed, start_ms: int, end_ms: int | None, limit: int | None
    ) -> History:
        """There is none."""
        raise NoHistoryError("Binance keeps no past order books: depth can only be heard", subject=listed.subject)

    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """The interval's last book."""
        return FeedDataRecord(
            source=SOURCE,
            subject=subject,
            kind=FeedDataKind.DEPTH,
            granularity=self.granularity,
            ts_event=from_epoch_micros(bar.last.time_ms * 1000),
            values={"price": float(bar.close), **bar.last.detail},
        )
