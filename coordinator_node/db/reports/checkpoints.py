"""Checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, select, text, tuple_
from sqlmodel import col

from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.db.tables import CheckpointRow
from coordinator_node.entities.prediction import CheckpointStatus

_NEWEST_VERSION = text(
    """
    SELECT CAST(xmin AS text) || ' ' || id FROM checkpoints
    ORDER BY period_end DESC, created_at DESC, id DESC LIMIT 1
    """
)


class CheckpointPlace(NamedTuple):
    """Where a checkpoint stands in the order, newest first."""

    period_end: datetime
    created_at: datetime
    id: str

    @classmethod
    def of(cls, row: Record) -> CheckpointPlace:
        """The place of a row."""
        return cls(row["period_end"], row["created_at"], row["id"])


def newest_checkpoints(
    connection: Connection,
    *,
    status: CheckpointStatus | None = None,
    limit: int = 1,
    after: CheckpointPlace | None = None,
) -> list[Record]:
    """The checkpoints whose periods end last, newest first, those behind `after`."""
    row = CheckpointRow
    newest = _checkpoints().order_by(col(row.period_end).desc(), col(row.created_at).desc(), col(row.id).desc())
    if status is not None:
        newest = newest.where(col(row.status) == status.value)
    if after is not None:
        newest = newest.where(tuple_(col(row.period_end), col(row.created_at), col(row.id)) < tuple_(*after))
    return fetch(connection, newest.limit(limit))


def newest_version(connection: Connection) -> str | None:
    """Something that differs whenever the newest checkpoint is another or changed; None before the first."""
    return connection.execute(_NEWEST_VERSION).scalar()


def checkpoint_by_id(connection: Connection, checkpoint_id: str) -> Record | None:
    """One checkpoint; None where there is none of that id."""
    found = fetch(connection, _checkpoints().where(col(CheckpointRow.id) == checkpoint_id))
    return found[0] if found else None


def _checkpoints() -> Select[*tuple[Any, ...]]:
    row = CheckpointRow
    return select(
        col(row.id),
        col(row.period_start),
        col(row.period_end),
        col(row.status),
        col(row.entries_jsonb).label("entries"),
        col(row.meta_jsonb).label("meta"),
        col(row.created_at),
        col(row.tx_hash),
        col(row.submitted_at),
        col(row.merkle_root),
    )
