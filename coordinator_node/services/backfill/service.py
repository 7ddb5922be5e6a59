"""Fetches a feed's history page by page, and says how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.json_values import reason_of
from coordinator_node.entities.prediction import BackfillStatus
from coordinator_node.entities.times import as_utc, utc_now
from coordinator_node.feeds.base import DataFeed
from coordinator_node.feeds.errors import PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.micros import MICROSECOND
from coordinator_node.runtime.leases import LeaseLostError
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.feed_data.backoff import Backoff
from coordinator_node.services.feed_data.paging import HistoryReader

log = get_logger(__name__)

# Failures in a row, without a page between them, after which a job ends: about five minutes.
MOST_FAILURES = 12
# How often a fetch that takes long says how much longer.
TELL_SECONDS = 30.0


@dataclass(frozen=True)
class BackfillRequest:
    """What to fetch: the records of a feed's subjects with start <= ts_event < end, `page_size` records at a time.

    `cursor_ts` is where an interrupted fetch goes on, None for one that starts. `job_id` is the job that is told of the
    progress, None for none.
    """

    source: str
    subjects: tuple[str, ...]
    kind: str
    granularity: str
    start: datetime
    end: datetime
    page_size: int = 500
    cursor_ts: datetime | None = None
    job_id: str | None = None


@dataclass
class BackfillResult:
    """What a fetch has done; of one that was resumed, what was done since."""

    records_written: int = 0
    pages_fetched: int = 0


class RecordStore(Protocol):
    """Where records go."""

    def append_records(self, records: Sequence[FeedRecord]) -> int:
        """Store records for good, those with a time that is there already in its place; returns how many."""


class JobProgress(Protocol):
    """Where a job's progress is kept; what the methods mean is said in `DBBackfillJobRepository`."""

    def get(self, job_id: str) -> BackfillJobRow | None:
        """The job."""

    def update_progress(self, job_id: str, *, cursor_ts: datetime, records_written: int, pages_fetched: int) -> None:
        """Say how far it has come, in totals."""

    def set_status(self, job_id: str, status: str, *, error: str | None = None) -> None:
        """Move it on."""


class BackfillService:
    """Fetches history into `repository`, which is anything that has `append_records`."""

    def __init__(
        self,
        feed: DataFeed,
        repository: RecordStore,
        job_repository: JobProgress | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.feed = feed
        self.repository = repository
        self.job_repository = job_repository
        self._clock = clock

    async def run(self, request: BackfillRequest) -> BackfillResult:
        """Fetch and store all that the request asks for, one subject after the other.

        A venue that cannot be had at the moment is asked again. The request's job moves to running, and ends as
        completed or, with the reason, as failed; it stays running where the database was lost or this was cancelled,
        and may then be run again from its cursor.

        Raises:
            PermanentFeedError: the source cannot serve it, has no record of a subject in the whole range, or could not
                be had for long.
        """
        job = _Job(self.job_repository, request)
        await asyncio.to_thread(job.begin)
        try:
            await self._fetch_all(request, job)
        except (DBAPIError, LeaseLostError):
            raise
        except Exception as error:  # whatever a source or a disk raises ends this job alone, with the reason
            await asyncio.to_thread(job.end, BackfillStatus.FAILED, reason_of(error))
            raise
        await asyncio.to_thread(job.end, BackfillStatus.COMPLETED)
        return job.done

    async def _fetch_all(self, request: BackfillRequest, job: _Job) -> None:
        problems: list[PermanentFeedError] = []
        for subject in request.subjects:
            try:
                found = await self._fetch_subject(request, subject, job)
                if not found and request.cursor_ts is None:
                    raise PermanentFeedError(
                        f"{request.source} has no {request.granularity} {request.kind} records of {subject}"
                        f" from {request.start.isoformat()} to {request.end.isoformat()}"
                    )
            except PermanentFeedError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    async def _fetch_subject(self, request: BackfillRequest, subject: str, job: _Job) -> int:
        """Fetch the rest of one subject's records; returns how many there were."""
        history = HistoryReader(self.feed, request.source, request.kind, request.granularity, self._clock)
        backoff = Backoff(self._clock)
        cursor, found = as_utc(request.cursor_ts or request.start), 0
        pace = _Pace(subject, cursor, as_utc(request.end), self._clock)
        while True:
            try:
                async with aclosing(history.pages(subject, cursor, as_utc(request.end), request.page_size)) as pages:
                    async for page in pages:
                        written = await asyncio.to_thread(self.repository.append_records, page.records)
                        cursor, found = page.upto, found + len(page.records)
                        await asyncio.to_thread(job.page_stored, subject, cursor, written)
                        pace.reached(cursor)
                        backoff.succeeded()
                return found
            except RetryableFeedError as error:
                await self._wait(backoff, error)

    async def _wait(self, backoff: Backoff, error: RetryableFeedError) -> None:
        seconds = backoff.failed(error)
        if backoff.failures >= MOST_FAILURES:
            raise PermanentFeedError(f"given up after {MOST_FAILURES} failures in a row: {error}") from error
        log.warning("backfill waits for the source", reason=str(error), seconds=round(seconds, 1))
        await asyncio.sleep(seconds)


class _Pace:
    """Says in the log, every TELL_SECONDS, how far a subject has come and about how many seconds are left."""

    def __init__(self, subject: str, start: datetime, end: datetime, clock: Callable[[], datetime]) -> None:
        self._subject = subject
        self._start = start
        self._end = end
        self._clock = clock
        self._begun_at = self._told_at = clock()

    def reached(self, cursor: datetime) -> None:
        """All before `cursor` is stored."""
        now = self._clock()
        done = (cursor - self._start) / max(self._end - self._start, MICROSECOND)
        if (now - self._told_at).total_seconds() < TELL_SECONDS or done <= 0:
            return
        self._told_at = now
        left = (now - self._begun_at).total_seconds() * max(0.0, 1 - done) / done
        log.info("backfill goes on", subject=self._subject, percent=round(100 * done, 1), seconds_left=round(left))


class _Job:
    """What the request's job is told; nobody is told where there is none. `done` is what this run did."""

    def __init__(self, progress: JobProgress | None, request: BackfillRequest) -> None:
        self.done = BackfillResult()
        self._progress = progress
        self._request = request
        self._before = BackfillResult()

    def begin(self) -> None:
        """Move it to running, where it is not already: a run that died left it so."""
        job_id = self._request.job_id
        if self._progress is None or job_id is None:
            return
        job = self._progress.get(job_id)
        if job is None:
            raise LookupError(f"there is no backfill job {job_id!r}")
        self._before = BackfillResult(job.records_written, job.pages_fetched)
        if job.status != BackfillStatus.RUNNING:
            self._progress.set_status(job_id, BackfillStatus.RUNNING)

    def page_stored(self, subject: str, cursor: datetime, written: int) -> None:
        """A page was stored. A job of several subjects has come as far as its last subject has."""
        self.done.records_written += written
        self.done.pages_fetched += 1
        request = self._request
        self._tell(cursor if subject == request.subjects[-1] else as_utc(request.cursor_ts or request.start))

    def end(self, status: BackfillStatus, error: str | None = None) -> None:
        """Nothing more will be done."""
        if self._progress is None or self._request.job_id is None:
            return
        if status is BackfillStatus.COMPLETED:
            self._tell(as_utc(self._request.end))
        self._progress.set_status(self._request.job_id, status, error=error)

    def _tell(self, cursor: datetime) -> None:
        if self._progress is not None and self._request.job_id is not None:
            self._progress.update_progress(
                self._request.job_id,
                cursor_ts=cursor,
                records_written=self._before.records_written + self.done.records_written,
                pages_fetched=self._before.pages_fetched + self.done.pages_fetched,
            )
