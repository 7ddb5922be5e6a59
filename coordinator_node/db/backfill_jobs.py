"""History jobs, for operators' own code."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select

from coordinator_node.db.repositories.statements import committing, newest
from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.moves import check_move
from coordinator_node.entities.prediction import BACKFILL_MOVES, BackfillStatus
from coordinator_node.entities.times import as_utc, utc_now


class DBBackfillJobRepository:
    """Reads and writes history jobs; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self, *, source: str, subject: str, kind: str, granularity: str, start_ts: datetime, end_ts: datetime
    ) -> BackfillJobRow:
        """Add a pending job for the records of one feed between two times."""
        job = BackfillJobRow(
            source=source,
            subject=subject,
            kind=kind,
            granularity=granularity,
            start_ts=as_utc(start_ts),
            end_ts=as_utc(end_ts),
        )
        with committing(self._session):
            self._session.add(job)
        self._session.refresh(job)
        return job

    def get(self, job_id: str) -> BackfillJobRow | None:
        """One job; None where there is none of that id."""
        return self._session.get(BackfillJobRow, job_id, populate_existing=True)

    def find(self, *, status: str | None = None, limit: int = 100) -> list[BackfillJobRow]:
        """Jobs of a status, or all: the newest `limit` by the time they were asked for, in ascending time."""
        query = select(BackfillJobRow)
        if status is not None:
            query = query.where(col(BackfillJobRow.status) == status)
        return newest(self._session, query, col(BackfillJobRow.created_at), col(BackfillJobRow.id), limit=limit)

    def get_running(self) -> BackfillJobRow | None:
        """The job that runs, the newest if there were several; None where none does."""
        return next(iter(self.find(status=BackfillStatus.RUNNING.value, limit=1)), None)

    def update_progress(self, job_id: str, *, cursor_ts: datetime, records_written: int, pages_fetched: int) -> None:
        """Say how far a job has come, in totals.

        Raises:
            LookupError: there is no job of that id.
        """
        with committing(self._session):
            job = self._locked(job_id)
            job.cursor_ts = as_utc(cursor_ts)
            job.records_written = records_written
            job.pages_fetched = pages_fetched
            job.updated_at = utc_now()

    def set_status(self, job_id: str, status: str, *, error: str | None = None) -> None:
        """Move a job on, with the reason where it failed.

        Raises:
            LookupError: there is no job of that id.
            ValueError: there is no such status.
            IllegalMoveError: the job's status does not lead there.
        """
        with committing(self._session):
            job = self._locked(job_id)
            target = BackfillStatus(status)
            job.status = check_move(BACKFILL_MOVES, f"backfill job {job_id}", BackfillStatus(job.status), target).value
            job.error = error
            job.updated_at = utc_now()

    def _locked(self, job_id: str) -> BackfillJobRow:
        job = self._session.get(BackfillJobRow, job_id, populate_existing=True, with_for_update=True)
        if job is None:
            raise LookupError(f"there is no backfill job {job_id!r}")
        return job
