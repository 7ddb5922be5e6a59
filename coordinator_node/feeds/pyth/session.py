"""Access to Pyth for one kind and granularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.micros import from_epoch_micros
from coordinator_node.feeds.pyth.client import PythClient
from coordinator_node.feeds.pyth.feed_ids import FeedIds
from coordinator_node.feeds.pyth.history import PastPrices
from coordinator_node.feeds.pyth.stream import open_stream
from coordinator_node.feeds.venue.sampled_history import sampled_history
from coordinator_node.feeds.venue.sampling import Bar, ceil_ms, floor_ms
from coordinator_node.feeds.venue.session import Heard, History, VenueSession, VenueStream

SOURCE = "pyth"

SETTLED_MS = 60_000
"""How long after its end an interval without a later update is over: a feed that is open has several a second."""

MANY_UPDATES_SECONDS = 60
"""From this granularity on it is quicker to ask for a tick than for all updates of its interval."""


@dataclass(frozen=True)
class Wanted:
    """What is sampled from the updates."""

    kind: FeedDataKind
    granularity: str

    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """The tick or the candle of an interval; the confidence of its last price is in the metadata."""
        candle = self.kind == FeedDataKind.CANDLE
        return FeedDataRecord(
            source=SOURCE,
            subject=subject,
            kind=self.kind,
            granularity=self.granularity,
            ts_event=from_epoch_micros((bar.start_ms if candle else bar.last.time_ms) * 1000),
            values=_candle(bar) if candle else {"price": float(bar.close)},
            metadata=dict(bar.last.detail),
        )


def _candle(bar: Bar) -> dict[str, float]:
    prices = {"open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close}
    return {**{name: float(price) for name, price in prices.items()}, "volume": 0.0}


class PythSession(VenueSession):
    """One client, and what is to be sampled."""

    settle_ms = SETTLED_MS
    keeps_history = True

    def __init__(self, client: PythClient, wanted: Wanted, ids: FeedIds, poll_seconds: float) -> None:
        self._client = client
        self._wanted = wanted
        self._ids = ids
        self.size_ms = granularity_seconds(wanted.granularity) * 1000
        self.quiet_seconds = poll_seconds

    async def begin(self, subjects: Sequence[str]) -> int:
        """Asks for the latest prices of all."""
        return (await self._client.latest(self._ids.by_id(subjects))).now_ms

    async def connect(self, subjects: Sequence[str]) -> VenueStream:
        """One stream for all subjects."""
        return await open_stream(self._client, self._ids.by_id(subjects))

    async def history(self, subject: str, start_ms: int, end_ms: int | None, limit: int | None) -> History:
        """From Benchmarks, completed by Hermes; sparse ticks one by one from Hermes."""
        feed_id = self._ids.id_of(subject)
        latest = await self._client.latest({feed_id: subject})
        newest = latest.updates[feed_id].publish_time
        start = floor_ms(start_ms, self.size_ms) // 1000
        end = ceil_ms(latest.now_ms if end_ms is None else end_ms, self.size_ms) // 1000
        size = self.size_ms // 1000
        needed = max(0, min(end, newest) - start)
        if limit is not None:
            needed = min(needed, limit * size)
        past = PastPrices(self._client, feed_id, subject, newest, needed)
        sparse = self._wanted.kind == FeedDataKind.TICK and size >= MANY_UPDATES_SECONDS
        return await sampled_history(
            past.last_updates(start, end, size) if sparse else past.all_updates(start, end),
            size_ms=self.size_ms,
            start_ms=start_ms,
            end_ms=end_ms,
            settled_ms=latest.now_ms - self.settle_ms,
            limit=limit,
            record=lambda bar: self.record(subject, bar),
        )

    async def look(self, subject: str) -> Sequence[Heard]:
        """Not used: every kind has a history."""
        return ()

    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """The record of an interval."""
        return self._wanted.record(subject, bar)
