"""What was heard and is not stored yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.errors import MalformedRecordError
from coordinator_node.feeds.validation import AskedFor, to_feed_record
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.feed_data.paging import is_final

log = get_logger(__name__)

BURST_RECORDS = 1000
# A source that brings more than can be stored waits once so many records are held.
HELD_RECORDS = 50_000
# How far a record's time may lie ahead of this machine's clock. Beyond, the watermark would claim a future that nobody
# has seen, and it never moves back.
MOST_AHEAD = timedelta(seconds=60)

# Different reasons that are told of one listening; a source that is wrong in so many ways needs no more of them.
MOST_REFUSALS_TOLD = 1000


class Inbox:
    """The sink of a listening: checks each record and keeps it until it is stored.

    Attributes:
        heard_at: when the source last gave a record that can be stored, or will be.
        refusal: why the last record since then was refused; None where none was.
        due: for a subject whose candle came before its close by this machine's clock, when it will have closed. Such a
            candle is not kept, because it may still change: it is to be fetched then.
    """

    def __init__(
        self, clock: Callable[[], datetime], wake: Callable[[], None], asked_for: AskedFor, known_after: timedelta
    ) -> None:
        self.heard_at = clock()
        self.refusal: str | None = None
        self.due: dict[str, datetime] = {}
        self._clock = clock
        self._wake = wake
        self._asked_for = asked_for
        self._known_after = known_after
        self._refusals_told: set[str] = set()
        self._held: dict[str, deque[FeedRecord]] = {}
        self._size = 0
        self._room = asyncio.Event()

    async def on_record(self, record: FeedDataRecord) -> None:
        """Take one record; one that cannot be stored is named in the log and costs no other."""
        now = self._clock()
        try:
            heard = self._asked_for.named(to_feed_record(record, now))
        except MalformedRecordError as error:
            self._refuse(str(error))
            return
        self.heard_at, self.refusal = now, None
        if is_final(heard) and self._is_timely(heard):
            await self._keep(heard)

    def burst(self) -> list[FeedRecord]:
        """The oldest records of each subject, BURST_RECORDS of each at most; the same again until they are `stored`."""
        return [record for records in self._held.values() for record in islice(records, BURST_RECORDS)]

    def stored(self, burst: Sequence[FeedRecord]) -> None:
        """Forget a burst, or all of some subjects in it: it was committed."""
        for record in burst:
            self._held[record.subject].popleft()
        self._size -= len(burst)
        self._room.set()

    def take_due(self) -> list[str]:
        """The subjects whose too early candle has closed by now; each is given once."""
        now = self._clock()
        subjects = [subject for subject, at in self.due.items() if at <= now]
        for subject in subjects:
            del self.due[subject]
        return subjects

    def _is_timely(self, heard: FeedRecord) -> bool:
        known_at = heard.ts_event + self._known_after
        ahead = known_at - self.heard_at
        if ahead > MOST_AHEAD + self._known_after:
            log.warning(
                "record refused: its time has not come; set this machine's clock, or correct the source",
                subject=heard.subject,
                ts_event=heard.ts_event.isoformat(),
                seconds_ahead=ahead.total_seconds(),
            )
            return False
        if self._asked_for.kind == FeedDataKind.CANDLE and ahead > timedelta(0):
            self.due[heard.subject] = max(known_at, self.due.get(heard.subject, known_at))
            return False
        return True

    def _refuse(self, reason: str) -> None:
        """Tell each reason once: a source that names its records otherwise does so with every one."""
        self.refusal = reason
        if reason not in self._refusals_told and len(self._refusals_told) < MOST_REFUSALS_TOLD:
            self._refusals_told.add(reason)
            log.warning("record refused", reason=reason)

    async def _keep(self, heard: FeedRecord) -> None:
        while self._size >= HELD_RECORDS:
            self._room.clear()
            await self._room.wait()
        self._held.setdefault(heard.subject, deque()).append(heard)
        self._size += 1
        self._wake()
