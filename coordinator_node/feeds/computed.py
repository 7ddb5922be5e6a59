"""The shared base of sources whose history can be computed from the time alone.

Such a source keeps no state: whatever it is asked for, whenever and by whichever process, the same time has the same
records. What became known in a stretch of time is therefore a pure function, `records`, and listening, fetching,
restarting and filling a gap are all the same thing read in different ways.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.entities.times import event_time, utc_now
from coordinator_node.feeds.base import DataFeed, FeedSink
from coordinator_node.feeds.contracts import (
    FeedDataRecord,
    FeedFetchRequest,
    FeedSubscription,
    SubjectDescriptor,
    known_delay,
)
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.listening import ListeningTask
from coordinator_node.feeds.micros import MICROSECOND

CLOCK_CHECK_SECONDS = 0.2
"""The longest sleep while waiting for a record, so that a wall clock that was stepped is noticed soon."""

DEFAULT_NEWEST = 500
"""How many spacings back a fetch goes that names neither its start nor a limit."""

MIN_CHUNK, DEFAULT_CHUNK = 100, 10_000
"""How many spacings a fetch computes at a time: its limit, but at least the first; the second where it has none."""


class ComputedFeed(DataFeed):
    """A source that says which records any stretch of time has; `clock` gives the present as an aware datetime."""

    source: str

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock

    def follow(self, clock: Callable[[], datetime]) -> None:
        """Take the present from another clock from now on, such as that of the worker that listens."""
        self._clock = clock

    @abstractmethod
    async def list_subjects(self) -> Sequence[SubjectDescriptor]:
        """As DataFeed says."""

    @abstractmethod
    def check(self, subjects: Sequence[str], kind: str, granularity: str) -> None:
        """Raises PermanentFeedError, saying what to set instead, for what this source does not have."""

    @abstractmethod
    def history(
        self, subject: str, kind: str, granularity: str, start: datetime, end: datetime
    ) -> list[FeedDataRecord]:
        """The records with start <= ts_event < end, ascending, each ts_event once; past and future alike.

        What is asked for has passed `check`. Every ts_event is an aware datetime.
        """

    def spacing_seconds(self, granularity: str) -> float:
        """Seconds on the wall clock between two records of a granularity."""
        return float(granularity_seconds(granularity))

    def records(
        self, subject: str, kind: str, granularity: str, after: datetime, upto: datetime
    ) -> list[FeedDataRecord]:
        """The records that become known in (after, upto], ascending: a tick at its ts_event, a candle at its close.

        Pure: it gives the future as readily as the past, and consecutive stretches give each record exactly once.

        Raises:
            PermanentFeedError: the source does not have what is asked for.
        """
        self._check_all((subject,), kind, granularity)
        delay = self._delay(kind, granularity)
        return self.history(subject, kind, granularity, after - delay + MICROSECOND, upto - delay + MICROSECOND)

    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> ListeningTask:
        """Hands each record to `sink` when it becomes known, never before, from this call's moment on.

        The records of one moment come in order of subject. After a delay (a busy loop, a slow sink, a stopped
        process) every record that fell due meanwhile follows without loss.

        Raises:
            PermanentFeedError: the source does not have what is subscribed to.
        """
        self._check_all(sub.subjects, sub.kind, sub.granularity)
        since = self._clock()
        return ListeningTask(
            f"{self.source} {sub.kind} {sub.granularity}", lambda stopping: self._listen(sub, sink, since, stopping)
        )

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        """The known records with start_ts <= ts_event < end_ts, ascending by time, then by subject.

        Of more than `limit`, the oldest; to page on, ask for one subject at a time, from just after the last record.
        Without `start_ts` the newest `limit` of the last `limit` spacings (500 where there is no limit).
        A record that is not known yet, such as the running candle, is never given.

        Raises:
            PermanentFeedError: the source does not have what is asked for, or a bound or the limit is no such thing.
        """
        self._check_all(req.subjects, req.kind, req.granularity)
        if req.limit is not None and req.limit < 1:
            raise PermanentFeedError(f"cannot fetch {req.limit} records: the limit must be at least 1")
        spacing = timedelta(seconds=self.spacing_seconds(req.granularity))
        first_unknown = self._clock() - self._delay(req.kind, req.granularity) + MICROSECOND
        end = first_unknown if req.end_ts is None else min(_bound("end_ts", req.end_ts), first_unknown)
        if req.start_ts is None:
            newest = req.limit or DEFAULT_NEWEST
            return self._merged(req, end - newest * spacing, end)[-newest:]
        return self._oldest(req, _bound("start_ts", req.start_ts), end, spacing)

    def _oldest(
        self, req: FeedFetchRequest, start: datetime, end: datetime, spacing: timedelta
    ) -> list[FeedDataRecord]:
        chunk = spacing * (DEFAULT_CHUNK if req.limit is None else max(req.limit, MIN_CHUNK))
        found: list[FeedDataRecord] = []
        while start < end and (req.limit is None or len(found) < req.limit):
            chunk_end = min(start + chunk, end)
            found += self._merged(req, start, chunk_end)
            start = chunk_end
        return found[: req.limit]

    def _merged(
        self, what: FeedFetchRequest | FeedSubscription, start: datetime, end: datetime
    ) -> list[FeedDataRecord]:
        """The records of every subject with start <= ts_event < end, ascending by time, then by subject."""
        return _in_order(
            record
            for subject in dict.fromkeys(what.subjects)
            for record in self.history(subject, what.kind, what.granularity, start, end)
        )

    async def _listen(self, sub: FeedSubscription, sink: FeedSink, since: datetime, stopping: asyncio.Event) -> None:
        """Looks one spacing ahead at a time and hands over what is there as the clock reaches it."""
        delay = self._delay(sub.kind, sub.granularity)
        spacing = timedelta(seconds=self.spacing_seconds(sub.granularity))
        start = since - delay + MICROSECOND
        while True:
            end = start + spacing
            for record in self._merged(sub, start, end):
                if not await self._reached(event_time(record.ts_event) + delay, stopping):
                    return
                await sink.on_record(record)
            if not await self._reached(end + delay - MICROSECOND, stopping):
                return
            start = end

    async def _reached(self, moment: datetime, stopping: asyncio.Event) -> bool:
        """Sleeps until the clock shows `moment`; False if the listening is to stop."""
        while not stopping.is_set():
            remaining = (moment - self._clock()).total_seconds()
            if remaining <= 0:
                # A sink that never waits would otherwise keep the loop, and with it `stop`, from running.
                await asyncio.sleep(0)
                return not stopping.is_set()
            try:
                await asyncio.wait_for(stopping.wait(), min(remaining, CLOCK_CHECK_SECONDS))
            except TimeoutError:
                continue
        return False

    def _delay(self, kind: str, granularity: str) -> timedelta:
        return known_delay(kind, self.spacing_seconds(granularity))

    def _check_all(self, subjects: Sequence[str], kind: str, granularity: str) -> None:
        if not subjects or not all(isinstance(subject, str) and subject.strip() for subject in subjects):
            raise PermanentFeedError(
                f"subjects are {subjects!r}: FEED_SUBJECTS must name at least one, none of them empty"
            )
        try:
            granularity_seconds(granularity)
        except ValueError as error:
            raise PermanentFeedError(f"FEED_GRANULARITY: {error}") from error
        self.check(subjects, kind, granularity)


def _in_order(records: Iterable[FeedDataRecord]) -> list[FeedDataRecord]:
    return sorted(records, key=lambda record: (record.ts_event, record.subject))


def _bound(what: str, value: float | datetime) -> datetime:
    try:
        return event_time(value)
    except (ValueError, OverflowError, OSError) as error:
        raise PermanentFeedError(f"cannot fetch with {what}={value!r}: {error}") from error
