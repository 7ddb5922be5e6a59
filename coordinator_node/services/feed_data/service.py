"""The feed stage: listens to a source, fetches what was missed, stores all of it once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import Engine

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import transaction
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds.base import DataFeed
from coordinator_node.feeds.contracts import FeedDataKind, FeedSubscription
from coordinator_node.feeds.errors import RetryableFeedError
from coordinator_node.feeds.validation import AskedFor
from coordinator_node.runtime.leases import Lease, LeaseFence
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import PassResult, StoppedError, unless
from coordinator_node.runtime.notify import FEED_RECORDS, notify
from coordinator_node.services.feed_data.backoff import Backoff
from coordinator_node.services.feed_data.catch_up import CatchUp
from coordinator_node.services.feed_data.gaps import GapCheck, Repair
from coordinator_node.services.feed_data.inbox import Inbox
from coordinator_node.services.feed_data.listening import Listening, listen
from coordinator_node.services.feed_data.paging import PAGE_RECORDS, HistoryReader
from coordinator_node.services.feed_data.store import prune_records, store_records

log = get_logger(__name__)

IDLE_SECONDS = 0.5
PRUNE_RECORDS = 5000


def lease_name(settings: Settings) -> str:
    """The lease of this feed: one worker at a time for the same source, kind, granularity and subjects."""
    subjects = ",".join(sorted(settings.feed_subjects))
    return f"feed/{settings.feed_source}/{settings.feed_kind}/{settings.feed_granularity}/{subjects}"


class FeedService:
    """One feed worker's stage. Its methods run in one event loop; SQL runs in threads."""

    def __init__(
        self,
        engine: Engine,
        feed: DataFeed,
        settings: Settings,
        lease: Lease,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
        background: Callable[..., None],
        stop: asyncio.Event | None = None,
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._settings = settings
        self._lease = lease
        self._clock = clock
        self._wake = wake
        self._background = background
        self._stop = stop or asyncio.Event()
        self._kind = FeedDataKind(settings.feed_kind)
        self._history = HistoryReader(
            feed, settings.feed_source, settings.feed_kind, settings.feed_granularity, clock, self._stop
        )
        self._catch_up = CatchUp(engine, settings, self._history, self._store, clock)
        self._gaps = GapCheck(engine, settings, self._history, self._store, clock)
        self._inbox = self._new_inbox()
        self._listening: Listening | None = None
        self._listen_again, self._ask_again = Backoff(clock), Backoff(clock)
        self._prune_at: datetime | None = None

    async def step(self) -> PassResult:
        """Listen, catch up with what came before, store what was heard, look for gaps.

        Raises:
            RetryableFeedError: the source could not be had in part; the rest was done, and the next passes try again.
            ConfigurationError: the source refuses everything that it is asked for.
        """
        if not self._lease.held:
            await self.close()
            return PassResult(wait_seconds=IDLE_SECONDS)
        try:
            return await self._pass(self._lease.fence())
        except StoppedError:
            return PassResult()

    async def close(self) -> None:
        """Stop listening; what was heard and not stored will be fetched by whoever listens next."""
        if self._listening is not None:
            await self._end_listening()
        self._inbox = self._new_inbox()
        self._catch_up.forget()

    async def _pass(self, fence: LeaseFence) -> PassResult:
        failures: list[RetryableFeedError] = []
        counts = dict.fromkeys(("caught_up", "records", "repaired", "pruned"), 0)
        repair: Repair | None = None
        with _noting(failures, self._listen_again):
            await self._listen()
        # Taken before anything is fetched: what is heard of a subject by now, its history then covers.
        burst = self._inbox.burst()
        self._catch_up.fall_behind(self._missed(burst))
        if self._ask_again.ready:
            with _noting(failures, self._ask_again):
                counts["caught_up"] = await self._catch_up.run(fence, PAGE_RECORDS)
                self._ask_again.succeeded()
        counts["records"] = await self._store_heard(fence, burst)
        if self._ask_again.ready and not failures:
            with _noting(failures, self._ask_again):
                up_to_date = [each for each in self._candle_subjects() if each not in self._catch_up.behind]
                repair = await self._gaps.run(fence, up_to_date)
        counts["repaired"] = repair.stored if repair else 0
        counts["pruned"] = await self._prune(fence)
        if failure := failures[0] if failures else await self._listening_lost():
            raise failure
        more = bool(self._catch_up.behind) and self._ask_again.ready
        return PassResult(counts, again=more or repair is not None or counts["pruned"] == PRUNE_RECORDS)

    async def _listen(self) -> None:
        """Listen before anything is fetched, so that nothing falls between the two."""
        if self._listening is not None or not self._listen_again.ready:
            return
        settings = self._settings
        subscription = FeedSubscription(settings.feed_subjects, self._kind, settings.feed_granularity)
        self._listening = await unless(self._stop, listen(self._feed, subscription, self._inbox))
        self._inbox.heard_at, self._inbox.refusal = self._clock(), None
        self._catch_up.fall_behind(self._listening.subjects)
        self._background(self._listening.watch(self._wake))
        log.info("listening", source=settings.feed_source, subjects=",".join(self._listening.subjects))

    async def _listening_lost(self) -> RetryableFeedError | None:
        """Give up a listening that failed or stalled, and say why; the next pass listens anew."""
        if self._listening is None:
            return None
        failure = self._listening.failure
        if failure is not None:
            self._listen_again.failed(failure)
        else:
            inbox = self._inbox
            failure = self._listening.silence(inbox.heard_at, self._clock(), self._history.spacing, inbox.refusal)
        if failure is not None:
            await self._end_listening()
        return failure

    async def _end_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.close()

    def _missed(self, burst: Sequence[FeedRecord]) -> list[str]:
        """The subjects of which a candle was not heard, or was heard before it was final."""
        if not (subjects := self._candle_subjects()):
            return []
        missed = {*self._inbox.take_due(), *self._catch_up.gaps_before(burst), *self._catch_up.overdue(burst)}
        return [subject for subject in subjects if subject in missed]

    async def _store_heard(self, fence: LeaseFence, burst: Sequence[FeedRecord]) -> int:
        """Store what was heard, but of those that are still behind; returns how many were new."""
        storable = [record for record in burst if record.subject not in self._catch_up.behind]
        if not storable:
            return 0
        stored = await asyncio.to_thread(self._store, fence, storable)
        self._inbox.stored(storable)
        self._catch_up.stored(storable)
        self._listen_again.succeeded()
        return stored

    def _store(self, fence: LeaseFence, records: Sequence[FeedRecord]) -> int:
        with transaction(self._engine, fence) as session:
            stored = store_records(session, records, self._clock())
            if stored:
                notify(session, FEED_RECORDS)
        return stored

    def _candle_subjects(self) -> tuple[str, ...]:
        """The subjects that are listened to, where their records must follow each other on a grid."""
        return self._listening.subjects if self._listening and self._kind is FeedDataKind.CANDLE else ()

    def _new_inbox(self) -> Inbox:
        settings = self._settings
        asked_for = AskedFor(
            settings.feed_source, settings.feed_subjects, settings.feed_kind, settings.feed_granularity
        )
        return Inbox(self._clock, self._wake, asked_for, self._history.known_after)

    async def _prune(self, fence: LeaseFence) -> int:
        now = self._clock()
        if self._prune_at is not None and now < self._prune_at:
            return 0
        deleted = await asyncio.to_thread(self._delete_old, fence, now)
        if deleted < PRUNE_RECORDS:
            self._prune_at = now + timedelta(seconds=self._settings.feed_retention_check_seconds)
        return deleted

    def _delete_old(self, fence: LeaseFence, now: datetime) -> int:
        with transaction(self._engine, fence) as session:
            return prune_records(session, now - timedelta(days=self._settings.feed_record_ttl_days), PRUNE_RECORDS)


@contextmanager
def _noting(failures: list[RetryableFeedError], backoff: Backoff) -> Iterator[None]:
    """Note that the source could not be had, and when to try again, so that the rest of the pass goes on."""
    try:
        yield
    except RetryableFeedError as error:
        backoff.failed(error)
        failures.append(error)
