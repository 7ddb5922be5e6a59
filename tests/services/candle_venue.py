"""A venue of one-minute candles in memory, with the faults that venues have, and workers that store what it gives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from coordinator_node.config.settings import Settings
from coordinator_node.feeds.base import FeedSink
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord, FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.errors import PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.listening import ListeningTask
from coordinator_node.runtime.leases import Lease, LeaseLostError
from coordinator_node.services.feed_data.service import FeedService, lease_name

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SUBJECTS = ("BTC", "ETH")


def open_time(minute: int) -> datetime:
    return START + minute * MINUTE


def candle(source: str, subject: str, minute: int, part: float = 1.0, **metadata: Any) -> FeedDataRecord:
    """The candle that opens so many minutes after START; `part` of it is over, and its volume shows how much."""
    price = 100.0 + minute + (1000.0 if subject == "ETH" else 0.0)
    values = {"open": price, "high": price + 1, "low": price - 1, "close": price + 0.5, "volume": 60.0 * part}
    at = int(open_time(minute).timestamp())
    return FeedDataRecord(source, subject, FeedDataKind.CANDLE, "1m", at, values, metadata)


class CandleVenue:
    """A source whose clock the test moves. Its history goes back for ever.

    Attributes:
        holes: (subject, minute) of candles that it does not have.
        refused: subjects that it does not know; with `names_refused` its refusal says which.
        most: how many records it gives at once, whatever is asked for.
        fetch_failures, listen_failures: what the next calls raise.
        stalled: its stream says nothing.
    """

    def __init__(self, source: str = "venue") -> None:
        self.source = source
        self.now = START + timedelta(minutes=60, seconds=5)
        self.holes: set[tuple[str, int]] = set()
        self.refused: set[str] = set()
        self.names_refused = False
        self.most = 1000
        self.fetch_failures: list[Exception] = []
        self.listen_failures: list[Exception] = []
        self.stalled = False
        self.fetches: list[FeedFetchRequest] = []
        self._streams: dict[FeedSink, asyncio.Future[None]] = {}
        self._subjects: dict[FeedSink, tuple[str, ...]] = {}

    def clock(self) -> datetime:
        return self.now

    def closed(self, subject: str, first: int, end: datetime | None = None) -> list[int]:
        """The minutes from `first` on whose candles the venue has and calls closed."""
        last = ((end or self.now) - START) // MINUTE
        return [minute for minute in range(first, last) if (subject, minute) not in self.holes]

    async def list_subjects(self) -> Sequence[Any]:
        return []

    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> ListeningTask:
        if self.listen_failures:
            raise self.listen_failures.pop(0)
        for subject in sub.subjects:
            if subject in self.refused:
                raise PermanentFeedError(f"no {subject} here", subject=subject if self.names_refused else None)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._streams[sink] = ended
        self._subjects[sink] = sub.subjects

        async def run(stopping: asyncio.Event) -> None:
            stopped = asyncio.ensure_future(stopping.wait())
            try:
                await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    ended.result()
            finally:
                stopped.cancel()
                self._streams.pop(sink, None)

        return ListeningTask("venue", run)

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        self.fetches.append(req)
        if self.fetch_failures:
            raise self.fetch_failures.pop(0)
        (subject,) = req.subjects
        first = -(-(int(req.start_ts) - int(START.timestamp())) // 60)
        running = (self.now - START) // MINUTE
        minutes = [*self.closed(subject, first), running]
        until = float(req.end_ts)
        # As some venues do, it gives the candle that still runs, too.
        found = [
            candle(self.source, subject, minute, part=1.0 if minute < running else 0.1)
            for minute in minutes
            if minute >= first and open_time(minute).timestamp() < until
        ]
        return found[: min(req.limit or self.most, self.most)]

    def drop_streams(self, error: Exception | None = None) -> None:
        for ended in self._streams.values():
            if not ended.done():
                ended.set_exception(error or RetryableFeedError("connection reset"))

    def forget(self, sink: FeedSink) -> None:
        """Its process is no more."""
        if sink in self._streams and not self._streams[sink].done():
            self._streams[sink].set_result(None)

    @property
    def listened_to(self) -> bool:
        return bool(self._streams)

    async def advance(self, order: Callable[[list[FeedDataRecord]], Iterable[FeedDataRecord]] = list) -> None:
        """A minute passes; `order` makes what is said out of what should be."""
        self.now += MINUTE
        closed = (self.now - START) // MINUTE - 1
        said = [candle(self.source, s, closed) for s in SUBJECTS if (s, closed) not in self.holes]
        await self.say(*order(said))

    async def say(self, *records: FeedDataRecord) -> None:
        if self.stalled:
            return
        for sink in list(self._streams):
            for record in records:
                if record.subject in self._subjects[sink]:
                    await sink.on_record(record)


class FeedProcess:
    """A feed worker without its process: `kill` ends it as kill -9 does."""

    def __init__(self, engine: Engine, venue: CandleVenue, holder: str, settings: Settings | None = None) -> None:
        self.venue = venue
        self.engine = engine
        self.settings = settings or candle_settings(venue.source)
        self.lease = Lease(engine, lease_name(self.settings), holder)
        self.watches: list[asyncio.Task[None]] = []
        self.failures: list[Exception] = []
        self._sinks: list[FeedSink] = []
        self.service = FeedService(engine, self, self.settings, self.lease, venue.clock, lambda: None, self._background)

    async def list_subjects(self) -> Sequence[Any]:
        return await self.venue.list_subjects()

    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> ListeningTask:
        self._sinks.append(sink)
        return await self.venue.listen(sub, sink)

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        return await self.venue.fetch(req)

    async def steps(self, count: int = 1) -> None:
        """So many passes; what a worker's loop would log and try again is noted."""
        for _ in range(count):
            await asyncio.sleep(0)  # the watch over a listening that has just ended runs
            try:
                await self.service.step()
            except (RetryableFeedError, LeaseLostError) as error:
                self.failures.append(error)

    async def kill(self) -> None:
        for watch in self.watches:
            watch.cancel()
        await asyncio.gather(*self.watches, return_exceptions=True)
        for sink in self._sinks:
            self.venue.forget(sink)

    async def end(self) -> None:
        with contextlib.suppress(RetryableFeedError):
            await self.service.close()
        await self.kill()

    def _background(self, work: Any) -> None:
        self.watches.append(asyncio.create_task(work))


def candle_settings(source: str, subjects: tuple[str, ...] = SUBJECTS, **more: Any) -> Settings:
    return Settings(
        feed_source=source,
        feed_subjects=subjects,
        feed_kind="candle",
        feed_granularity="1m",
        **{"feed_backfill_minutes": 10, **more},
    )


def expire_leases(engine: Engine) -> None:
    """As if those who hold leases had been silent for long."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE leases SET expires_at = clock_timestamp()"))


def stored_minutes(engine: Engine, source: str, subject: str) -> list[int]:
    """The minutes of the stored candles, in order; fails if one is not the venue's closed candle to the last digit."""
    query = text(
        "SELECT ts_event, values_jsonb FROM feed_records WHERE source = :source AND subject = :subject"
        " ORDER BY ts_event"
    )
    with engine.connect() as connection:
        rows = connection.execute(query, {"source": source, "subject": subject}).all()
    minutes = [(row.ts_event - START) // MINUTE for row in rows]
    for minute, row in zip(minutes, rows, strict=True):
        assert row.ts_event == open_time(minute)
        assert row.values_jsonb == candle(source, subject, minute).values
    return minutes


def watermark(engine: Engine, source: str, subject: str) -> datetime | None:
    query = text("SELECT last_event_ts FROM feed_ingestion_state WHERE source = :source AND subject = :subject")
    with engine.connect() as connection:
        found: datetime | None = connection.execute(query, {"source": source, "subject": subject}).scalar()
    return found
