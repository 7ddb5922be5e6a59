from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.db import DBBackfillJobRepository
from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.moves import IllegalMoveError

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=1)


@pytest.fixture
def repository(engine: Engine) -> Iterator[DBBackfillJobRepository]:
    with Session(engine) as session:
        yield DBBackfillJobRepository(session)


def create(repository: DBBackfillJobRepository, subject: str = "BTC") -> BackfillJobRow:
    return repository.create(
        source="binance", subject=subject, kind="candle", granularity="1m", start_ts=START, end_ts=END
    )


def got(repository: DBBackfillJobRepository, job_id: str) -> BackfillJobRow:
    job = repository.get(job_id)
    assert job is not None
    return job


def test_a_new_job_is_pending_and_committed(repository: DBBackfillJobRepository, engine: Engine) -> None:
    made = create(repository)
    assert (made.status, made.cursor_ts, made.records_written, made.pages_fetched) == ("pending", None, 0, 0)
    with Session(engine) as other:
        found = got(DBBackfillJobRepository(other), made.id)
        assert (found.subject, found.start_ts, found.end_ts) == ("BTC", START, END)
    assert repository.get("nothing") is None


def test_jobs_are_found_newest_kept_ascending(repository: DBBackfillJobRepository) -> None:
    jobs = [create(repository, subject).id for subject in ("A", "B", "C")]
    repository.set_status(jobs[1], "running")
    assert [job.subject for job in repository.find()] == ["A", "B", "C"]
    assert [job.subject for job in repository.find(limit=2)] == ["B", "C"]
    assert [job.subject for job in repository.find(status="pending")] == ["A", "C"]


def test_progress_is_kept_in_totals(repository: DBBackfillJobRepository) -> None:
    job_id = create(repository).id
    cursor = START + timedelta(hours=1)
    repository.update_progress(job_id, cursor_ts=cursor.replace(tzinfo=None), records_written=60, pages_fetched=1)
    repository.update_progress(job_id, cursor_ts=cursor, records_written=120, pages_fetched=2)
    job = got(repository, job_id)
    assert (job.cursor_ts, job.records_written, job.pages_fetched) == (cursor, 120, 2)
    assert job.updated_at >= job.created_at


def test_a_job_moves_only_where_its_status_leads(repository: DBBackfillJobRepository) -> None:
    job_id = create(repository).id
    assert repository.get_running() is None
    with pytest.raises(IllegalMoveError, match="pending and cannot become completed"):
        repository.set_status(job_id, "completed")
    repository.set_status(job_id, "running")
    running = repository.get_running()
    assert running is not None
    assert running.id == job_id
    repository.set_status(job_id, "failed", error="venue closed")
    assert (got(repository, job_id).status, got(repository, job_id).error) == ("failed", "venue closed")
    with pytest.raises(IllegalMoveError, match="it is final"):
        repository.set_status(job_id, "running")
    with pytest.raises(ValueError, match="done"):
        repository.set_status(job_id, "done")
    assert got(repository, job_id).status == "failed"


def test_an_unknown_job_is_named(repository: DBBackfillJobRepository) -> None:
    with pytest.raises(LookupError, match="no backfill job 'x'"):
        repository.set_status("x", "running")
    with pytest.raises(LookupError, match="no backfill job 'x'"):
        repository.update_progress("x", cursor_ts=START, records_written=0, pages_fetched=0)
