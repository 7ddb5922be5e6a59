"""Checkpoints, for operators' own code."""

from __future__ import annotations

from typing import Any, cast

from sqlmodel import Session, col, select, update

from coordinator_node.db.repositories.statements import committing, newest, upsert
from coordinator_node.db.repositories.values import instant, storable
from coordinator_node.db.tables import CheckpointRow
from coordinator_node.entities.prediction import CheckpointRecord, CheckpointStatus, EmissionCheckpoint
from coordinator_node.entities.times import as_utc


class DBCheckpointRepository:
    """Reads and writes checkpoints; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, record: CheckpointRecord) -> None:
        """Insert a checkpoint, or update the one of that id, which keeps its created_at and what is not the entity's.

        Raises:
            ValueError: it holds what the database cannot, such as NaN.
        """
        with committing(self._session):
            upsert(self._session, CheckpointRow, [_values(record)], only_when_new=("created_at",))

    def find(self, *, status: str | None = None, limit: int | None = None) -> list[CheckpointRecord]:
        """Checkpoints of a status, or all: the newest `limit` by the end of their period, in ascending time."""
        query = select(CheckpointRow)
        if status is not None:
            query = query.where(col(CheckpointRow.status) == status)
        order = (col(CheckpointRow.period_end), col(CheckpointRow.created_at), col(CheckpointRow.id))
        return [_entity(row) for row in newest(self._session, query, *order, limit=limit)]

    def get_latest(self) -> CheckpointRecord | None:
        """The checkpoint whose period ends last; None where there is none."""
        return next(iter(self.find(limit=1)), None)

    def update_merkle_root(self, checkpoint_id: str, merkle_root: str) -> None:
        """Store the root of a checkpoint's tree.

        Raises:
            LookupError: there is no checkpoint of that id.
        """
        change = update(CheckpointRow).where(col(CheckpointRow.id) == checkpoint_id).values(merkle_root=merkle_root)
        with committing(self._session):
            if self._session.exec(change).rowcount == 0:
                raise LookupError(f"there is no checkpoint {checkpoint_id!r}")


def _entity(row: CheckpointRow) -> CheckpointRecord:
    return CheckpointRecord(
        id=row.id,
        period_start=row.period_start,
        period_end=row.period_end,
        status=CheckpointStatus(row.status),
        entries=cast(list[EmissionCheckpoint], row.entries_jsonb or []),
        meta=row.meta_jsonb or {},
        created_at=row.created_at,
        tx_hash=row.tx_hash,
        submitted_at=row.submitted_at,
    )


def _values(record: CheckpointRecord) -> dict[str, Any]:
    name = f"checkpoint {record.id!r}"
    return {
        "id": record.id,
        "period_start": as_utc(record.period_start),
        "period_end": as_utc(record.period_end),
        "status": CheckpointStatus(record.status).value,
        "entries_jsonb": storable(name, "entries", record.entries),
        "meta_jsonb": storable(name, "meta", record.meta),
        "created_at": as_utc(record.created_at),
        "tx_hash": record.tx_hash,
        "submitted_at": instant(record.submitted_at),
    }
