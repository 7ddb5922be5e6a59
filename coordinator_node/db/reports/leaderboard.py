"""Models and the newest leaderboard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, text
from sqlmodel import col

from coordinator_node.db.reports.expressions import is_ensemble
from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.db.tables import LeaderboardRow, ModelRow

# The row's own version too: somebody may have put it right by hand.
_VERSION = text(
    """
    SELECT CAST(newest.xmin AS text) || ' ' || newest.id AS leaderboard, (
        SELECT md5(string_agg(id, ' ' ORDER BY id)) FROM models WHERE presence = 'PRESENT'
    ) AS present
    FROM (SELECT xmin, id FROM leaderboards ORDER BY created_at DESC, id DESC LIMIT 1) AS newest
    """
)
_PRESENT = text("SELECT id FROM models WHERE id = ANY(:ids) AND presence = 'PRESENT'")


def newest_leaderboard(connection: Connection) -> tuple[datetime, list[Mapping[str, Any]]] | None:
    """When the newest leaderboard was made, and its entries as stored; None before the first."""
    row = LeaderboardRow
    newest = select(col(row.created_at), col(row.entries_jsonb)).order_by(
        col(row.created_at).desc(), col(row.id).desc()
    )
    found = connection.execute(newest.limit(1)).first()
    if found is None:
        return None
    entries = found.entries_jsonb if isinstance(found.entries_jsonb, list) else []
    return found.created_at, [entry for entry in entries if isinstance(entry, Mapping)]


def leaderboard_version(connection: Connection) -> tuple[str | None, ...]:
    """Something that differs whenever the newest leaderboard or the models that are present do; () before the first."""
    found = connection.execute(_VERSION).first()
    return () if found is None else tuple(found)


def present_models(connection: Connection, model_ids: Iterable[str]) -> set[str]:
    """Those of the models that the orchestrator has now."""
    return set(connection.execute(_PRESENT, {"ids": list(model_ids)}).scalars())


def submitted_models(connection: Connection, limit: int) -> list[Record]:
    """The real models, by name; an ensemble's virtual model is none of them."""
    row = ModelRow
    models: Select[*tuple[Any, ...]] = (
        select(
            col(row.id).label("model_id"),
            col(row.name).label("model_name"),
            col(row.player_name).label("cruncher_name"),
            col(row.player_id).label("cruncher_id"),
            col(row.deployment_identifier).label("deployment_id"),
        )
        .where(~is_ensemble(col(row.id)))
        .order_by(col(row.name), col(row.id))
        .limit(limit)
    )
    return fetch(connection, models)
