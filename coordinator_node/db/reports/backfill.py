"""Backfill jobs as the report API shows them."""

from __future__ import annotations

from sqlalchemy import Connection, text

from coordinator_node.db.reports.records import Record, fetch

_COLUMNS = """
    SELECT id, source, subject, kind, granularity, start_ts, end_ts, cursor_ts, records_written, pages_fetched,
           status, error, created_at, updated_at
    FROM backfill_jobs
"""
_NEWEST = text(
    _COLUMNS + "WHERE status = coalesce(CAST(:status AS text), status) ORDER BY created_at DESC, id DESC LIMIT :limit"
)
_BY_ID = text(_COLUMNS + "WHERE id = :id")


def newest_jobs(connection: Connection, *, status: str | None, limit: int) -> list[Record]:
    """The jobs of a status (None: of any), newest first."""
    return fetch(connection, _NEWEST, {"status": status, "limit": limit})


def job_by_id(connection: Connection, job_id: str) -> Record | None:
    """One job; None where there is none of that id."""
    return next(iter(fetch(connection, _BY_ID, {"id": job_id})), None)
