"""Backfill jobs: asking for one, and which is to be run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, case, text
from sqlmodel import Session, col, select

from coordinator_node.db.advisory import AdvisoryLock, take
from coordinator_node.db.engine import transaction
from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.file_names import safe_name
from coordinator_node.entities.moves import check_move
from coordinator_node.entities.prediction import BACKFILL_MOVES, BackfillStatus
from coordinator_node.runtime.leases import LeaseFence

LEASE_NAME = "backfill"

OPEN = (BackfillStatus.PENDING.value, BackfillStatus.RUNNING.value)

_LEASE_ALIVE = text("SELECT EXISTS (SELECT 1 FROM leases WHERE name = :name AND expires_at > clock_timestamp())")


class BackfillBusyError(Exception):
    """Another job is running or about to; one runs at a time. `job_id` is its id."""

    def __init__(self, job: BackfillJobRow) -> None:
        super().__init__(
            f"backfill job {job.id} is {job.status} ({job.source} {job.subject} {job.kind} {job.granularity} from "
            f"{job.start_ts.isoformat()} to {job.end_ts.isoformat()}); wait until it has ended: a feed worker runs it, "
            "and so does `coordinator-node backfill` given the same order"
        )
        self.job_id = job.id


@dataclass(frozen=True)
class HistoryRange:
    """The records of one feed with start <= ts_event < end."""

    source: str
    subject: str
    kind: str
    granularity: str
    start: datetime
    end: datetime


def request_job(session: Session, wanted: HistoryRange, now: datetime) -> BackfillJobRow:
    """Add a pending job, which whoever holds the lease LEASE_NAME will run. An end in the future becomes now.

    Raises:
        BackfillBusyError: a job waits, or one is running and somebody runs it. One that a dead process left running is
            no reason: it goes on before the new one.
        ValueError: the range is empty; UnsafeNameError where a name cannot be a folder's.
    """
    for what in ("source", "subject", "kind", "granularity"):
        safe_name(what, getattr(wanted, what))
    end = min(wanted.end, now)
    if wanted.start >= end:
        raise ValueError(
            f"there is nothing to fetch: start ({wanted.start.isoformat()}) must be before end and before now"
        )
    take(session.connection(), AdvisoryLock.BACKFILL)
    for job in open_jobs(session):
        if job.status == BackfillStatus.PENDING or _somebody_runs(session):
            raise BackfillBusyError(job)
    made = BackfillJobRow(
        source=wanted.source,
        subject=wanted.subject,
        kind=wanted.kind,
        granularity=wanted.granularity,
        start_ts=wanted.start,
        end_ts=end,
        created_at=now,
        updated_at=now,
    )
    session.add(made)
    session.flush()
    return made


def open_jobs(session: Session) -> list[BackfillJobRow]:
    """The jobs that have not ended, in the order in which they are to be run: those that were begun come first."""
    begun_first = case((col(BackfillJobRow.status) == BackfillStatus.RUNNING.value, 0), else_=1)
    query = (
        select(BackfillJobRow)
        .where(col(BackfillJobRow.status).in_(OPEN))
        .order_by(begun_first, col(BackfillJobRow.created_at), col(BackfillJobRow.id))
    )
    return list(session.exec(query).all())


def any_open(engine: Engine) -> bool:
    """Whether there is a job to run."""
    with Session(engine) as session:
        return bool(open_jobs(session))


class FencedJobs:
    """Where the holder of the lease keeps its jobs' progress; every write holds only while the lease does.

    The methods are those of `DBBackfillJobRepository`.
    """

    def __init__(self, engine: Engine, fence: LeaseFence, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._fence = fence
        self._clock = clock

    def get(self, job_id: str) -> BackfillJobRow | None:
        """One job; None where there is none of that id."""
        with Session(self._engine) as session:
            return session.get(BackfillJobRow, job_id)

    def update_progress(self, job_id: str, *, cursor_ts: datetime, records_written: int, pages_fetched: int) -> None:
        """Say how far a job has come, in totals."""
        with transaction(self._engine, self._fence) as session:
            job = self._locked(session, job_id)
            job.cursor_ts, job.records_written, job.pages_fetched = cursor_ts, records_written, pages_fetched
            job.updated_at = self._clock()

    def set_status(self, job_id: str, status: str, *, error: str | None = None) -> None:
        """Move a job on, with the reason where it failed.

        Raises:
            IllegalMoveError: the job's status does not lead there.
        """
        with transaction(self._engine, self._fence) as session:
            job = self._locked(session, job_id)
            current, target = BackfillStatus(job.status), BackfillStatus(status)
            job.status = check_move(BACKFILL_MOVES, f"backfill job {job_id}", current, target).value
            job.error = error
            job.updated_at = self._clock()

    def _locked(self, session: Session, job_id: str) -> BackfillJobRow:
        return session.get_one(BackfillJobRow, job_id, with_for_update=True)


def _somebody_runs(session: Session) -> bool:
    return bool(session.connection().execute(_LEASE_ALIVE, {"name": LEASE_NAME}).scalar())
