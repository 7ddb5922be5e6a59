"""The shared base of the venues' sources: checks what is asked for, fetches, and starts listenings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import chain

from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.entities.times import event_time
from coordinator_node.feeds.base import DataFeed, FeedSink
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord, FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.errors import NoHistoryError, PermanentFeedError
from coordinator_node.feeds.micros import epoch_micros
from coordinator_node.feeds.venue.listening import VenueHandle, VenueListening
from coordinator_node.feeds.venue.session import SessionContext, VenueSession

DEFAULT_NEWEST = 500
"""How many intervals back a fetch goes that names neither its start nor a limit."""


class VenueFeed(DataFeed):
    """A source that speaks with a venue; `poll_seconds` is how often it asks where it cannot be told."""

    source: str
    kinds: tuple[FeedDataKind, ...]

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds

    @abstractmethod
    def check_subjects(self, subjects: Sequence[str]) -> None:
        """Raises PermanentFeedError, saying what to set instead, for subjects that no request could name."""

    @abstractmethod
    def session(self, kind: FeedDataKind, granularity: str) -> SessionContext:
        """Access to the venue for as long as the context is open."""

    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> VenueHandle:
        """Hands over every record once its interval is over at the venue, each once, in time order of its subject.

        It begins with what cannot be had from a fetch made after this returns. It ends with RetryableFeedError when
        the connection is lost or silent: listen anew, and fetch what was missed.

        Raises:
            PermanentFeedError: the venue does not have what is subscribed to; it names the subject at fault, if one is.
            RetryableFeedError: the venue cannot be reached.
        """
        kind = self.check(sub.subjects, sub.kind, sub.granularity)
        name = f"{self.source} {kind} {sub.granularity}"
        stack = AsyncExitStack()
        try:
            session = await stack.enter_async_context(self.session(kind, sub.granularity))
            subjects = tuple(dict.fromkeys(sub.subjects))
            listening = VenueListening(name, sink, stack, session, subjects, self._poll_seconds)
            await listening.begin()
        except BaseException:
            await stack.aclose()
            raise
        return VenueHandle(listening)

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        """The records of intervals that are over, start_ts <= ts_event < end_ts, ascending by time, then by subject.

        As many pages as it takes. Of more than `limit`, the oldest; to page on, ask for one subject at a time, from
        just after the last record. `end_ts` None means up to the venue's own present, whatever this machine's clock
        says. Without `start_ts` the records of the last `limit` intervals (500 where there is no limit).

        Raises:
            PermanentFeedError: the venue does not have what is asked for (NoHistoryError: not of the past), or a
                bound or the limit is no such thing.
            RetryableFeedError: the venue cannot be reached, or asks to wait.
        """
        kind = self.check(req.subjects, req.kind, req.granularity)
        if req.limit is not None and req.limit < 1:
            raise PermanentFeedError(f"cannot fetch {req.limit} records: the limit must be at least 1")
        start_ms, end_ms = _bound_ms("start_ts", req.start_ts), _bound_ms("end_ts", req.end_ts)
        async with self.session(kind, req.granularity) as session:
            if not session.keeps_history:
                raise NoHistoryError(f"FEED_SOURCE={self.source} has no past {kind} records: they can only be heard")
            if start_ms is None:
                return await self._newest(session, req, end_ms)
            return await self._from(session, req, start_ms, end_ms)

    async def _newest(
        self, session: VenueSession, req: FeedFetchRequest, end_ms: int | None
    ) -> Sequence[FeedDataRecord]:
        newest = req.limit or DEFAULT_NEWEST
        now_ms = await session.begin(req.subjects)
        end_ms = now_ms if end_ms is None else min(end_ms, now_ms)
        found = await self._from(session, req, end_ms - (newest + 1) * session.size_ms, end_ms, limited=False)
        return found[-newest:]

    async def _from(
        self,
        session: VenueSession,
        req: FeedFetchRequest,
        start_ms: int,
        end_ms: int | None,
        *,
        limited: bool = True,
    ) -> Sequence[FeedDataRecord]:
        if end_ms is not None and start_ms >= end_ms:
            return []
        limit = req.limit if limited else None
        found = [await session.history(subject, start_ms, end_ms, limit) for subject in dict.fromkeys(req.subjects)]
        records = sorted(chain.from_iterable(each.records for each in found), key=_time_and_subject)
        return records[:limit]

    def check(self, subjects: Sequence[str], kind: str, granularity: str) -> FeedDataKind:
        """The kind, if the venue has it and the subjects can be named; raises PermanentFeedError otherwise."""
        if not subjects or not all(isinstance(subject, str) and subject.strip() for subject in subjects):
            raise PermanentFeedError(
                f"subjects are {subjects!r}: FEED_SUBJECTS must name at least one, none of them empty"
            )
        try:
            granularity_seconds(granularity)
        except ValueError as error:
            raise PermanentFeedError(f"FEED_GRANULARITY: {error}") from error
        if kind not in self.kinds:
            listing = " or ".join(f"FEED_KIND={each}" for each in self.kinds)
            raise PermanentFeedError(f"FEED_SOURCE={self.source} has no {kind} records: set {listing}")
        self.check_subjects(subjects)
        return FeedDataKind(kind)


def _time_and_subject(record: FeedDataRecord) -> tuple[datetime, str]:
    return event_time(record.ts_event), record.subject


def _bound_ms(what: str, value: float | datetime | None) -> int | None:
    """The first millisecond at or after a bound, so that whole milliseconds compare with it exactly."""
    if value is None:
        return None
    try:
        return -(-epoch_micros(event_time(value)) // 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise PermanentFeedError(f"cannot fetch with {what}={value!r}: {error}") from error
