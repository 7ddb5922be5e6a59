"""The running check for missing candles, and their repair.

Candles follow each other at the feed's spacing. A hole between two stored ones is asked for when it is found, and some
more times later; what the venue then still does not have is its own gap, which is remembered and left. A check looks at
what was stored since the last one, and once after a start at the last FEED_BACKFILL_MINUTES.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import transaction
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.micros import MICROSECOND
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.feed_data.gap_log import (
    FeedName,
    Gap,
    GapLog,
    find_gaps,
    read_gap_log,
    write_gap_log,
)
from coordinator_node.services.feed_data.paging import HistoryReader

log = get_logger(__name__)

CHECK_SECONDS = 60.0

Store = Callable[[LeaseFence, Sequence[FeedRecord]], int]


@dataclass(frozen=True)
class Repair:
    """A gap that was asked for: how many of its candles the venue had."""

    stored: int


class GapCheck:
    """Looks for missing candles every CHECK_SECONDS and repairs what it can; `store` writes and commits a page."""

    def __init__(
        self, engine: Engine, settings: Settings, history: HistoryReader, store: Store, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._history = history
        self._store = store
        self._clock = clock
        self._look_back = timedelta(minutes=settings.feed_backfill_minutes)
        self._next: dict[str, datetime] = {}

    async def run(self, fence: LeaseFence, subjects: Sequence[str]) -> Repair | None:
        """Look at the subjects whose turn it is, and ask for the first gap that is due; None where none is.

        One gap a pass, so that what is heard meanwhile does not wait long.

        Raises:
            RetryableFeedError: the source cannot be asked at the moment; the subject's turn comes again.
        """
        for subject in subjects:
            now = self._clock()
            if now < self._next.get(subject, now):
                continue
            feed = self._named(subject)
            known = await asyncio.to_thread(self._look, fence, feed)
            gap = known.due(now)
            if gap is not None:
                return await self._repair(fence, feed, gap)
            self._next[subject] = now + timedelta(seconds=CHECK_SECONDS)
        return None

    async def _repair(self, fence: LeaseFence, feed: FeedName, gap: Gap) -> Repair:
        stored = await self._fetch(fence, feed, gap)
        left = await asyncio.to_thread(self._note_answer, fence, feed, gap)
        log.warning(
            "candles were missing",
            subject=feed.subject,
            after=gap.after.isoformat(),
            before=gap.before.isoformat(),
            repaired=stored,
            not_had=left,
        )
        return Repair(stored)

    async def _fetch(self, fence: LeaseFence, feed: FeedName, gap: Gap) -> int:
        stored = 0
        try:
            async with aclosing(self._history.pages(feed.subject, gap.after + MICROSECOND, gap.before)) as history:
                async for page in history:
                    stored += await asyncio.to_thread(self._store, fence, page.records)
        except PermanentFeedError as error:
            log.error("missing candles cannot be had", subject=feed.subject, reason=str(error))
        return stored

    def _look(self, fence: LeaseFence, feed: FeedName) -> GapLog:
        """Add to the feed's log what is missing among the records of which that is not known yet."""
        with transaction(self._engine, fence) as session:
            watermark, known = read_gap_log(session, feed)
            if watermark is not None:
                start = self._unchecked_from(feed, watermark, known)
                found = find_gaps(session, feed, start, watermark, self._history.spacing)
                known = known.with_found(found, watermark, self._clock())
                write_gap_log(session, feed, known)
        return known

    def _unchecked_from(self, feed: FeedName, watermark: datetime, known: GapLog) -> datetime:
        candidates = [watermark - self._look_back] if feed.subject not in self._next else []
        if known.checked_until is not None:
            candidates.append(known.checked_until)
        return min(candidates, default=watermark)

    def _note_answer(self, fence: LeaseFence, feed: FeedName, gap: Gap) -> int:
        """Note what is left of a gap; returns in how many pieces."""
        with transaction(self._engine, fence) as session:
            _, known = read_gap_log(session, feed)
            left = find_gaps(session, feed, gap.after, gap.before, self._history.spacing)
            write_gap_log(session, feed, known.with_answer(gap, left, self._clock()))
        return len(left)

    def _named(self, subject: str) -> FeedName:
        settings = self._settings
        return FeedName(settings.feed_source, subject, settings.feed_kind, settings.feed_granularity)
