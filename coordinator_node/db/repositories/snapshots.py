"""Snapshots, for operators' own code."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from coordinator_node.db.repositories.statements import committing, newest, upsert
from coordinator_node.db.repositories.values import storable
from coordinator_node.db.tables import SnapshotRow
from coordinator_node.entities.prediction import SnapshotRecord
from coordinator_node.entities.times import as_utc


class DBSnapshotRepository:
    """Reads and writes snapshots; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, record: SnapshotRecord) -> None:
        """Insert a snapshot, or update the one of that id, which keeps its created_at and what is not the entity's.

        Raises:
            ValueError: it holds what the database cannot, such as NaN.
        """
        with committing(self._session):
            upsert(self._session, SnapshotRow, [_values(record)], only_when_new=("created_at",))

    def find(
        self,
        *,
        model_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[SnapshotRecord]:
        """Snapshots whose period ends from `since` to `until`, both included: the newest `limit`, in ascending time.

        Of a period that was scored again they are those of the newest generation.
        """
        query = select(SnapshotRow).where(col(SnapshotRow.superseded_by).is_(None))
        if model_id is not None:
            query = query.where(col(SnapshotRow.model_id) == model_id)
        if since is not None:
            query = query.where(col(SnapshotRow.period_end) >= as_utc(since))
        if until is not None:
            query = query.where(col(SnapshotRow.period_end) <= as_utc(until))
        found = newest(self._session, query, col(SnapshotRow.period_end), col(SnapshotRow.id), limit=limit)
        return [_entity(row) for row in found]


def _entity(row: SnapshotRow) -> SnapshotRecord:
    return SnapshotRecord(
        id=row.id,
        model_id=row.model_id,
        period_start=row.period_start,
        period_end=row.period_end,
        prediction_count=row.prediction_count,
        result_summary=row.result_summary_jsonb or {},
        meta=row.meta_jsonb or {},
        created_at=row.created_at,
    )


def _values(record: SnapshotRecord) -> dict[str, Any]:
    name = f"snapshot {record.id!r}"
    return {
        "id": record.id,
        "model_id": record.model_id,
        "period_start": as_utc(record.period_start),
        "period_end": as_utc(record.period_end),
        "prediction_count": record.prediction_count,
        "result_summary_jsonb": storable(name, "result_summary", record.result_summary),
        "meta_jsonb": storable(name, "meta", record.meta),
        "created_at": as_utc(record.created_at),
    }
