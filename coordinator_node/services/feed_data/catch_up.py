"""Who is behind, and bringing them up to now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds.errors import NoHistoryError, PermanentFeedError
from coordinator_node.feeds.micros import MICROSECOND
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.feed_data.paging import HistoryReader
from coordinator_node.services.feed_data.store import read_watermark

log = get_logger(__name__)

# What is heard of those who are up to date waits for as long as a pass takes.
PAGES_A_PASS, SECONDS_A_PASS = 20, 5.0
OVERDUE_SECONDS, OVERDUE_AGAIN_SECONDS = 10.0, 60.0

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

Store = Callable[[LeaseFence, Sequence[FeedRecord]], int]


class CatchUp:
    """A subject is *behind* from when some of it may have been missed until its history was fetched up to now.

    What is heard of it meanwhile is to be held back, so that its watermark never passes a gap.

    Attributes:
        behind: the subjects that are, in the order in which they are fetched.
    """

    def __init__(
        self, engine: Engine, settings: Settings, history: HistoryReader, store: Store, clock: Callable[[], datetime]
    ) -> None:
        """Work on the settings' feed; `store` writes and commits a page, and returns how many records were new."""
        self.behind: list[str] = []
        self._engine = engine
        self._settings = settings
        self._history = history
        self._store = store
        self._clock = clock
        self._newest: dict[str, datetime] = {}
        self._found_overdue: dict[str, datetime] = {}

    def fall_behind(self, subjects: Iterable[str]) -> None:
        """These may have missed something."""
        self.behind += [subject for subject in subjects if subject not in self.behind]

    def stored(self, records: Iterable[FeedRecord]) -> None:
        """Take note of what was stored."""
        self._newest |= _newest_of(records, self._newest)

    def forget(self) -> None:
        """Somebody else may store from now on."""
        self.behind.clear()
        self._newest.clear()

    def gaps_before(self, heard: Iterable[FeedRecord]) -> set[str]:
        """The subjects of which a candle is missing between what was stored and what was heard."""
        times: dict[str, list[datetime]] = {}
        for record in heard:
            times.setdefault(record.subject, []).append(record.ts_event)
        allowed = 1.5 * self._history.spacing
        return {
            subject
            for subject, at in times.items()
            if any(later - earlier > allowed for earlier, later in pairwise(self._followed(subject, at)))
        }

    def overdue(self, heard: Iterable[FeedRecord]) -> list[str]:
        """The subjects whose next candle should have been heard long ago; each is given once in OVERDUE_AGAIN_SECONDS.

        Without this a candle that the source lost would be missed only when the next one comes.
        """
        now, spacing = self._clock(), self._history.spacing
        patience = spacing + self._history.known_after + timedelta(seconds=OVERDUE_SECONDS)
        again = max(spacing, timedelta(seconds=OVERDUE_AGAIN_SECONDS))
        found = [
            subject
            for subject, newest in (self._newest | _newest_of(heard, self._newest)).items()
            if now - newest > patience and now - self._found_overdue.get(subject, _LONG_AGO) > again
        ]
        self._found_overdue.update(dict.fromkeys(found, now))
        return found

    async def run(self, fence: LeaseFence, page_records: int) -> int:
        """Fetch the history of those behind, page after page, until a pass has had enough; returns how many were new.

        Raises:
            RetryableFeedError: the source cannot be asked at the moment; whoever was not finished stays behind.
        """
        stored = pages = 0
        enough_at = time.monotonic() + SECONDS_A_PASS
        while self.behind:
            subject = self.behind[0]
            start = await asyncio.to_thread(self._missing_from, subject)
            try:
                async with aclosing(self._history.pages(subject, start, self._clock(), page_records)) as history:
                    async for page in history:
                        stored += await asyncio.to_thread(self._store, fence, page.records)
                        self.stored(page.records)
                        pages += 1
                        enough = pages >= PAGES_A_PASS or time.monotonic() >= enough_at
                        # Where no watermark was moved, the next pass would only ask for the same page again.
                        if enough and page.upto > start + MICROSECOND and page.records:
                            return stored
            except NoHistoryError as error:
                log.info("going on with what is heard", subject=subject, reason=str(error))
            except PermanentFeedError as error:
                log.error("history cannot be had; going on with what is heard", subject=subject, reason=str(error))
            self.behind.remove(subject)
        return stored

    def _followed(self, subject: str, heard: list[datetime]) -> list[datetime]:
        newest = self._newest.get(subject)
        if newest is None:
            return sorted(heard)
        return [newest, *sorted(at for at in heard if at > newest)]

    def _missing_from(self, subject: str) -> datetime:
        """Where the missing records begin: at the watermark, but not before what retention would delete at once."""
        settings, now = self._settings, self._clock()
        with Session(self._engine) as session:
            watermark = read_watermark(
                session, settings.feed_source, subject, settings.feed_kind, settings.feed_granularity
            )
        if watermark is None:
            return now - timedelta(minutes=settings.feed_backfill_minutes)
        self._newest[subject] = max(watermark, self._newest.get(subject, watermark))
        return max(watermark, now - timedelta(days=settings.feed_record_ttl_days))


def _newest_of(records: Iterable[FeedRecord], known: Mapping[str, datetime]) -> dict[str, datetime]:
    """The newest time of each subject among the records, or the one that is known where that is newer."""
    newest: dict[str, datetime] = {}
    for record in records:
        so_far = newest.get(record.subject, known.get(record.subject, record.ts_event))
        newest[record.subject] = max(record.ts_event, so_far)
    return newest
