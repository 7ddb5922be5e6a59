"""The feed stage: listens to a source, fetches what was missed, stores all of it once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import transaction
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds.base import DataFeed, FeedHandle, listening_ended
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord, FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.errors import MalformedRecordError, PermanentFeedError
from coordinator_node.feeds.validation import to_feed_record
from coordinator_node.runtime.leases import Lease, LeaseFence
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.notify import FEED_RECORDS, notify
from coordinator_node.services.feed_data.store import prune_records, read_watermark, store_records

log = get_logger(__name__)

IDLE_SECONDS = 0.5
PAGE_RECORDS = 1000
BURST_RECORDS = 5000
# A source that brings more than can be stored waits once so many records are held.
HELD_RECORDS = 50_000
PRUNE_RECORDS = 5000


def lease_name(settings: Settings) -> str:
    """The lease of this feed: one worker at a time for the same source, kind, granularity and subjects."""
    subjects = ",".join(sorted(settings.feed_subjects))
    return f"feed/{settings.feed_source}/{settings.feed_kind}/{settings.feed_granularity}/{subjects}"


class _Inbox:
    """What was heard and is not stored yet."""

    def __init__(self, clock: Callable[[], datetime], wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._heard: asyncio.Queue[FeedRecord] = asyncio.Queue(maxsize=HELD_RECORDS)
        self._unstored: list[FeedRecord] = []

    async def on_record(self, record: FeedDataRecord) -> None:
        """Take one record; one that cannot be stored is named in the log and costs no other."""
        try:
            await self._heard.put(to_feed_record(record, self._clock()))
        except MalformedRecordError as error:
            log.warning("record refused", reason=str(error))
        self._wake()

    def burst(self) -> list[FeedRecord]:
        """The oldest records not yet stored; the same again until `stored`."""
        while len(self._unstored) < BURST_RECORDS and not self._heard.empty():
            self._unstored.append(self._heard.get_nowait())
        return self._unstored

    def stored(self) -> None:
        """Forget the burst: it was committed."""
        self._unstored = []

    @property
    def empty(self) -> bool:
        """Whether there is nothing to store."""
        return self._heard.empty() and not self._unstored


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
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._settings = settings
        self._lease = lease
        self._clock = clock
        self._wake = wake
        self._background = background
        self._kind = FeedDataKind(settings.feed_kind)
        self._inbox = _Inbox(clock, wake)
        self._handle: FeedHandle | None = None
        self._behind: list[str] = []
        self._prune_at: datetime | None = None

    async def step(self) -> PassResult:
        """Listen, catch up with what came before, store what was heard."""
        if not self._lease.held:
            await self.close()
            return PassResult(wait_seconds=IDLE_SECONDS)
        fence = self._lease.fence()
        if self._handle is None:
            await self._listen()
        counts = {"caught_up": await self._catch_up(fence), "records": 0, "pruned": 0}
        burst = self._inbox.burst()
        if burst:
            counts["records"] = await asyncio.to_thread(self._store, fence, burst)
            self._inbox.stored()
        counts["pruned"] = await self._prune(fence)
        return PassResult(counts, again=not self._inbox.empty or counts["pruned"] == PRUNE_RECORDS)

    async def close(self) -> None:
        """Stop listening; what was heard and not stored will be fetched by whoever listens next."""
        handle, self._handle = self._handle, None
        if handle is not None:
            await handle.stop()
            self._inbox = _Inbox(self._clock, self._wake)

    async def _listen(self) -> None:
        """Listen before anything is fetched, so that nothing falls between the two."""
        subscription = FeedSubscription(
            subjects=self._settings.feed_subjects, kind=self._kind, granularity=self._settings.feed_granularity
        )
        try:
            self._handle = await self._feed.listen(subscription, self._inbox)
        except PermanentFeedError as error:
            raise ConfigurationError(str(error)) from error
        self._behind = list(self._settings.feed_subjects)
        self._background(self._watch(self._handle))
        log.info("listening", source=self._settings.feed_source, subjects=",".join(self._settings.feed_subjects))

    async def _watch(self, handle: FeedHandle) -> None:
        """End the worker with the error that a listening ended with: without it no data would come."""
        await listening_ended(handle)

    async def _catch_up(self, fence: LeaseFence) -> int:
        """Fetch each subject's records from its watermark to now, page after page; returns how many were new.

        What is heard meanwhile is stored afterwards, so that the watermark never passes a gap.
        """
        stored = 0
        while self._behind:
            subject = self._behind[0]
            try:
                async for page in self._pages(subject):
                    stored += await asyncio.to_thread(self._store, fence, page)
            except PermanentFeedError as error:
                log.error("history cannot be had; going on with what is heard", subject=subject, reason=str(error))
            self._behind.pop(0)
        return stored

    async def _pages(self, subject: str) -> AsyncIterator[list[FeedRecord]]:
        now = self._clock()
        start = math.floor((await asyncio.to_thread(self._missing_from, subject, now)).timestamp())
        end = math.ceil(now.timestamp()) + 1
        while start < end:
            request = FeedFetchRequest(
                subjects=(subject,),
                kind=self._kind,
                granularity=self._settings.feed_granularity,
                start_ts=start,
                end_ts=end,
                limit=PAGE_RECORDS,
            )
            page = self._readable(await self._feed.fetch(request))
            if page:
                yield page
            if len(page) < PAGE_RECORDS:
                return
            # Whole seconds, as sources written for 0.1.84 take them: what shares the last one is asked for again.
            start = max(math.floor(page[-1].ts_event.timestamp()), start + 1)

    def _readable(self, page: Sequence[FeedDataRecord]) -> list[FeedRecord]:
        records: list[FeedRecord] = []
        for record in page:
            try:
                records.append(to_feed_record(record, self._clock()))
            except MalformedRecordError as error:
                log.warning("record refused", reason=str(error))
        return records

    def _missing_from(self, subject: str, now: datetime) -> datetime:
        settings = self._settings
        with Session(self._engine) as session:
            watermark = read_watermark(
                session, settings.feed_source, subject, settings.feed_kind, settings.feed_granularity
            )
        return watermark or now - timedelta(minutes=settings.feed_backfill_minutes)

    def _store(self, fence: LeaseFence, records: Sequence[FeedRecord]) -> int:
        with transaction(self._engine, fence) as session:
            stored = store_records(session, records, self._clock())
            if stored:
                notify(session, FEED_RECORDS)
        return stored

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
