"""Backfill jobs as the report API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from coordinator_node.db.reports.records import Record, fetch

_COLUMNS = """
    SELECT id, source, subject, kind, granularity, start_ts, end_ts, cursor_ts, records_written, pages_fetched,
           status, error, created_at, updated_at
    FROM backfill_jobs
"""
_NEWEST = text(
    _COLUMNS
    + """
    WHERE status = coalesce(CAST(:status AS text), status)
      AND (CAST(:created_at AS timestamptz) IS NULL OR (created_at, id) < (:created_at, :id))
    ORDER BY created_at DESC, id DESC LIMIT :limit
    """
)
_BY_ID = text(_COLUMNS + "WHERE id = :id")


class JobPlace(NamedTuple):
    """Where a job stands in the order, newest first."""

    created_at: datetime
    id: str

    @classmethod
    def of(cls, row: Record) -> JobPlace:
        """The place of a row."""
        return cls(row["created_at"], row["id"])


def newest_jobs(
    connection: Connection, *, status: str | None, limit: int, after: JobPlace | None = None
) -> list[Record]:
    """The jobs of a status (None: of any), newest first, those behind `after`."""
    place = after._asdict() if after else {"created_at": None, "id": None}
    return fetch(connection, _NEWEST, {"status": status, "limit": limit, **place})


def job_by_id(connection: Connection, job_id: str) -> Record | None:
    """One job; None where there is none of that id."""
    return next(iter(fetch(connection, _BY_ID, {"id": job_id})), None)
