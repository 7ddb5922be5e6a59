"""Runs backfill jobs, one at a time, while it holds the lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import transaction
from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.json_values import reason_of
from coordinator_node.entities.prediction import BackfillStatus
from coordinator_node.feeds.base import DataFeed
from coordinator_node.feeds.errors import FeedError
from coordinator_node.runtime.leases import Lease, LeaseFence, LeaseLostError
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.backfill.files import clear_unfinished, feed_folder, stage
from coordinator_node.services.backfill.jobs import FencedJobs, open_jobs
from coordinator_node.services.backfill.service import BackfillRequest, BackfillService
from coordinator_node.services.feed_data.paging import PAGE_RECORDS

log = get_logger(__name__)

IDLE_SECONDS = 0.5


class FencedFiles:
    """The daily files of one feed, to which only the holder of the lease can bring anything."""

    def __init__(self, engine: Engine, fence: LeaseFence, folder: Path) -> None:
        self._engine = engine
        self._fence = fence
        self._folder = folder

    def append_records(self, records: Sequence[FeedRecord]) -> int:
        """Merge the records into their days' files; returns how many there were.

        Raises:
            LeaseLostError: somebody else may write these files by now; nothing of them was changed.
        """
        staged = stage(self._folder, records)
        try:
            with transaction(self._engine) as session:
                # Checked first: the row stays locked until the files are in place, and nobody takes the lease before.
                self._fence.check(session)
                for day in staged:
                    day.publish()
        finally:
            for day in staged:
                day.discard()
        return len(records)


class BackfillRunner:
    """The stage: runs the open jobs, those that a dead process left running first, each from its cursor."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        lease: Lease,
        clock: Callable[[], datetime],
        feed_of: Callable[[str], DataFeed],
    ) -> None:
        """Run jobs while `lease` is held; `feed_of` makes a source by its name, and raises FeedError if it cannot."""
        self._engine = engine
        self._root = settings.backfill_data_dir
        self._lease = lease
        self._clock = clock
        self._feed_of = feed_of
        self._running: asyncio.Task[None] | None = None

    async def step(self) -> PassResult:
        """Begin the next job, or see whether the present one has ended."""
        if not self._lease.held:
            await self.close()
            return PassResult(wait_seconds=IDLE_SECONDS)
        if self._running is None:
            job = await asyncio.to_thread(self._next)
            if job is not None:
                self._running = asyncio.create_task(self._run(job, self._lease.fence()))
        if self._running is None or not self._running.done():
            return PassResult(wait_seconds=IDLE_SECONDS)
        ended, self._running = self._running, None
        ended.result()
        return PassResult({"backfill_jobs": 1}, again=True)

    async def close(self) -> None:
        """Leave the present job to whoever holds the lease next; what it has stored stays."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # it was given up, however it ends
                await running

    def _next(self) -> BackfillJobRow | None:
        with Session(self._engine) as session:
            return next(iter(open_jobs(session)), None)

    async def _run(self, job: BackfillJobRow, fence: LeaseFence) -> None:
        """Run one job to its end.

        Raises:
            DBAPIError: the database was lost; the job goes on in a later pass.
            LeaseLostError: the lease was lost; somebody else goes on with the job.
        """
        said = {"job_id": job.id, "source": job.source, "subject": job.subject}
        log.info("backfill begins", **said, start=job.start_ts.isoformat(), end=job.end_ts.isoformat())
        jobs = FencedJobs(self._engine, fence, self._clock)
        try:
            folder = feed_folder(self._root, job.source, job.subject, job.kind, job.granularity)
            clear_unfinished(folder)
            service = BackfillService(
                self._feed_of(job.source), FencedFiles(self._engine, fence, folder), jobs, self._clock
            )
        except (FeedError, ValueError) as error:
            log.error("backfill cannot begin", **said, reason=reason_of(error))
            await asyncio.to_thread(jobs.set_status, job.id, BackfillStatus.FAILED, error=reason_of(error))
            return
        try:
            done = await service.run(_request(job))
        except FeedError as error:
            log.error("backfill failed", **said, reason=str(error))
        except (DBAPIError, LeaseLostError):
            raise
        except Exception:  # the job's row says why it failed; the log says where, and the next job is run
            log.exception("backfill failed", **said)
        else:
            log.info("backfill completed", **said, records=done.records_written, folder=str(folder))


def _request(job: BackfillJobRow) -> BackfillRequest:
    return BackfillRequest(
        source=job.source,
        subjects=(job.subject,),
        kind=job.kind,
        granularity=job.granularity,
        start=job.start_ts,
        end=job.end_ts,
        page_size=PAGE_RECORDS,
        cursor_ts=job.cursor_ts,
        job_id=job.id,
    )
