"""Checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, column, func, null, select, text, tuple_
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
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

AT_ONCE = 25
"""So many checkpoints are in memory together; with a thousand models each takes a megabyte and more."""


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
    model_id: str | None = None,
) -> list[Record]:
    """The checkpoints whose periods end last, newest first, those behind `after`.

    With `model_id`, of each `meta` only the ranking, and in it null for every other model.
    """
    row = CheckpointRow
    newest = _checkpoints(model_id).order_by(col(row.period_end).desc(), col(row.created_at).desc(), col(row.id).desc())
    if status is not None:
        newest = newest.where(col(row.status) == status.value)
    if after is not None:
        newest = newest.where(tuple_(col(row.period_end), col(row.created_at), col(row.id)) < tuple_(*after))
    return fetch(connection, newest.limit(limit))


def each_checkpoint(
    connection: Connection, *, most: int, after: CheckpointPlace | None, model_id: str | None
) -> Iterator[Record]:
    """The same as `newest_checkpoints`, one after another, AT_ONCE of which are read together."""
    while most > 0:
        found = newest_checkpoints(connection, limit=min(most, AT_ONCE), after=after, model_id=model_id)
        if not found:
            return
        after = CheckpointPlace.of(found[-1])
        most -= len(found)
        yield from found


def newest_version(connection: Connection) -> str | None:
    """Something that differs whenever the newest checkpoint is another or changed; None before the first."""
    return connection.execute(_NEWEST_VERSION).scalar()


def checkpoint_by_id(connection: Connection, checkpoint_id: str) -> Record | None:
    """One checkpoint; None where there is none of that id."""
    found = fetch(connection, _checkpoints().where(col(CheckpointRow.id) == checkpoint_id))
    return found[0] if found else None


def _checkpoints(model_id: str | None = None) -> Select[*tuple[Any, ...]]:
    row = CheckpointRow
    meta = _ranking_of(model_id) if model_id is not None else col(row.meta_jsonb)
    return select(
        col(row.id),
        col(row.period_start),
        col(row.period_end),
        col(row.status),
        col(row.entries_jsonb).label("entries"),
        meta.label("meta"),
        col(row.created_at),
        col(row.tx_hash),
        col(row.submitted_at),
        col(row.merkle_root),
    )


def _ranking_of(model_id: str) -> ColumnElement[Any]:
    """`meta` with nothing but its ranking, where other models are null: an emission's indexes count them too."""
    ranking = col(CheckpointRow.meta_jsonb)["ranking"]
    ranked = (
        func.jsonb_array_elements(ranking)
        .table_valued(column("entry", JSONB), with_ordinality="place")
        .render_derived()
    )
    named = ranked.c.entry["model_id"]
    # What is no text is left to whoever reads it.
    is_other = and_(func.jsonb_typeof(named) == "string", named.astext != model_id)
    kept = func.jsonb_agg(aggregate_order_by(case((is_other, null()), else_=ranked.c.entry), ranked.c.place))
    alone = func.jsonb_build_object("ranking", select(kept).scalar_subquery(), type_=JSONB)
    return case((func.jsonb_typeof(ranking) == "array", alone))
