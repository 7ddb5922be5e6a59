"""Snapshots."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, select, tuple_
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import col

from coordinator_node.db.reports.expressions import is_ensemble
from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.db.tables import SnapshotRow


class SnapshotPlace(NamedTuple):
    """Where a snapshot stands in the order, newest first."""

    period_end: datetime
    created_at: datetime
    id: str

    @classmethod
    def of(cls, row: Record) -> SnapshotPlace:
        """The place of a row."""
        return cls(row["period_end"], row["created_at"], row["id"])


def newest_snapshots(
    connection: Connection,
    *,
    model_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    after: SnapshotPlace | None = None,
) -> list[Record]:
    """The newest snapshots whose period ends in [since, until], newest first, those behind `after`.

    Of real models unless one is named. Of one that was scored again only the newest generation.
    """
    return _newest(
        connection,
        ~is_ensemble(col(SnapshotRow.model_id)) if model_id is None else col(SnapshotRow.model_id) == model_id,
        since,
        until,
        limit,
        after,
    )


def ensemble_snapshots(
    connection: Connection,
    *,
    model_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    after: SnapshotPlace | None = None,
) -> list[Record]:
    """The newest snapshots of ensembles, of one or (None) of all; else as `newest_snapshots`."""
    of_ensembles = is_ensemble(col(SnapshotRow.model_id))
    if model_id is not None:
        of_ensembles = and_(of_ensembles, col(SnapshotRow.model_id) == model_id)
    return _newest(connection, of_ensembles, since, until, limit, after)


def _newest(
    connection: Connection,
    among: ColumnElement[bool],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    after: SnapshotPlace | None,
) -> list[Record]:
    row = SnapshotRow
    newest: Select[*tuple[Any, ...]] = (
        select(
            col(row.id),
            col(row.model_id),
            col(row.period_start),
            col(row.period_end),
            col(row.prediction_count),
            col(row.result_summary_jsonb).label("result_summary"),
            col(row.created_at),
        )
        .where(among)
        .where(col(row.superseded_by).is_(None))
        .order_by(col(row.period_end).desc(), col(row.created_at).desc(), col(row.id).desc())
        .limit(limit)
    )
    if since is not None:
        newest = newest.where(col(row.period_end) >= since)
    if until is not None:
        newest = newest.where(col(row.period_end) <= until)
    if after is not None:
        newest = newest.where(tuple_(col(row.period_end), col(row.created_at), col(row.id)) < tuple_(*after))
    return fetch(connection, newest)
