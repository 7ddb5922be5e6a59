"""The sources of venues that the shared suite runs for, each against the local venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from local_venue import LocalVenue
from venue_market import FEED_IDS, expected_klines, expected_trades, expected_updates, size_of

from coordinator_node.feeds import FeedDataRecord, FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.binance import BinanceFeed
from coordinator_node.feeds.pyth import PythFeed
from coordinator_node.feeds.pyth.client import Access
from coordinator_node.feeds.pyth.feed_ids import FeedIds
from coordinator_node.feeds.venue.listening import VenueHandle
from coordinator_node.feeds.venue.source import VenueFeed
from coordinator_node.feeds.venue.token_bucket import TokenBucket

PATIENT = 30.0  # polling so seldom that a test without faults never sees it
QUICK = 0.1

PYTH_IDS = {subject: feed_id for feed_id, subject in FEED_IDS.items()}


class Heard:
    """A sink that keeps what it gets by subject, and wakes whoever waits for a count."""

    def __init__(self) -> None:
        self.records: dict[str, list[FeedDataRecord]] = {}
        self._arrived = asyncio.Event()

    async def on_record(self, record: FeedDataRecord) -> None:
        self.records.setdefault(record.subject, []).append(record)
        self._arrived.set()

    def of(self, subject: str) -> list[FeedDataRecord]:
        return self.records.get(subject, [])

    async def holds(self, subject: str, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.of(subject)) < count:
                self._arrived.clear()
                await self._arrived.wait()


def pyth_feed(venue: LocalVenue, poll_seconds: float = PATIENT, bucket: TokenBucket | None = None) -> PythFeed:
    """With a limit that no test reaches, unless it brings its own."""
    access = Access(venue.url, venue.url, timeout_seconds=2.0, api_key=venue.api_key or "")
    return PythFeed(FeedIds({}), poll_seconds, access, bucket or TokenBucket(10**6, 1e6))


def binance_feed(venue: LocalVenue, poll_seconds: float = PATIENT) -> BinanceFeed:
    return BinanceFeed.from_options({**venue.binance_options(), "poll_seconds": str(poll_seconds)})


@dataclass(frozen=True)
class VenueCase:
    """One source and kind. `history` names its past in the venue's paths."""

    make: Callable[[LocalVenue, float], VenueFeed]
    kind: str
    granularity: str
    settle_ms: int
    history: str
    venue_rows: Callable[[LocalVenue, str, int, int], list[FeedDataRecord]]

    @property
    def size_ms(self) -> int:
        return size_of(self.granularity)

    def expected(self, venue: LocalVenue, start_ms: int, end_ms: int, subject: str = "BTC") -> list[FeedDataRecord]:
        """The records of the intervals from `start_ms` to `end_ms`, both starts of one."""
        return self.venue_rows(venue, subject, start_ms, end_ms)

    def heard_from(self, venue: LocalVenue) -> int:
        """The start of the first interval that a listening begun now hands over."""
        return (venue.now_ms - self.settle_ms) // self.size_ms * self.size_ms

    def request(self, *subjects: str, **bounds: object) -> FeedFetchRequest:
        return FeedFetchRequest(subjects or ("BTC",), self.kind, self.granularity, **bounds)

    def subscription(self, *subjects: str) -> FeedSubscription:
        return FeedSubscription(subjects or ("BTC",), self.kind, self.granularity)


@asynccontextmanager
async def listening(
    case: VenueCase, venue: LocalVenue, poll_seconds: float = PATIENT, subjects: tuple[str, ...] = ("BTC",)
) -> AsyncIterator[tuple[Heard, VenueHandle]]:
    """A listening that is stopped in the end, unless it failed before."""
    sink = Heard()
    handle = await case.make(venue, poll_seconds).listen(case.subscription(*subjects), sink)
    yield sink, handle
    async with asyncio.timeout(5):
        await handle.stop()


def _klines(granularity: str) -> Callable[[LocalVenue, str, int, int], list[FeedDataRecord]]:
    return lambda venue, subject, start, end: expected_klines(subject, f"{subject}USDT", granularity, start, end)


def _trades(venue: LocalVenue, subject: str, start: int, end: int) -> list[FeedDataRecord]:
    return expected_trades(subject, f"{subject}USDT", "1s", start, end)


def _updates(kind: str) -> Callable[[LocalVenue, str, int, int], list[FeedDataRecord]]:
    return lambda venue, subject, start, end: expected_updates(venue.pyth, PYTH_IDS[subject], kind, "1s", start, end)


CASES = {
    "binance candle": VenueCase(binance_feed, "candle", "1m", 2000, "klines", _klines("1m")),
    "binance tick": VenueCase(binance_feed, "tick", "1s", 2000, "aggTrades", _trades),
    "pyth candle": VenueCase(pyth_feed, "candle", "1s", 60_000, "window", _updates("candle")),
    "pyth tick": VenueCase(pyth_feed, "tick", "1s", 60_000, "window", _updates("tick")),
}
