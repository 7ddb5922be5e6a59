"""A stretch of a made-up market, of the kind and spacing that the feed brings."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.feed_scope import FeedScope

PRICE = 100.0
MOST_RECORDS = 300
"""A long horizon's records are further apart than the feed's, so that a check takes no time."""


def made_up_records(feed: FeedScope, subject: str, start: datetime, end: datetime, move: float) -> list[FeedRecord]:
    """The records of a window: the last one known at `start`, then those known until `end`, in time order.

    The price goes from PRICE evenly to PRICE * (1 + move).
    """
    span = (end - start).total_seconds()
    steps = max(1, min(int(span / feed.spacing), MOST_RECORDS - 1))
    return [
        FeedRecord(
            source=feed.source,
            subject=subject,
            kind=feed.kind,
            granularity=feed.granularity,
            ts_event=start + timedelta(seconds=span * step / steps) - feed.lag,
            values=values_of(feed.kind, PRICE * (1 + move * step / steps)),
            ts_ingested=start + timedelta(seconds=span * step / steps),
        )
        for step in range(steps + 1)
    ]


def values_of(kind: str, price: float) -> dict[str, Any]:
    """What a record of a kind holds, as the engine's own sources give it."""
    if kind == "candle":
        around = {"high": price * 1.0001, "low": price * 0.9999}
        return {"open": price, **around, "close": price, "volume": 1.0}
    if kind == "depth":
        bid, ask = price * 0.9999, price * 1.0001
        return {"price": price, "bid": bid, "ask": ask, "bids": [[bid, 1.0]], "asks": [[ask, 1.0]]}
    if kind == "funding":
        return {"funding_rate": (price - PRICE) / PRICE, "mark_price": price}
    return {"price": price, "volume": 1.0}
