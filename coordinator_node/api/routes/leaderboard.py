"""The models and their leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter

from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context
from coordinator_node.db.reports.leaderboard import newest_leaderboard, present_models, submitted_models
from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.schemas.report.competition import RESERVED, WINDOWS, LeaderboardEntry, ModelEntry
from coordinator_node.schemas.report.wire import number_or_none, object_or_empty

router = APIRouter(prefix="/reports", tags=["leaderboard"], dependencies=[PUBLIC])

MOST_ROWS = 5000


@router.get("/leaderboard")
def leaderboard(context: Context, include_ensembles: bool = False) -> list[LeaderboardEntry]:
    """The newest leaderboard, by rank; what is not ranked comes last. Empty before the first."""
    with context.database.reading() as connection:
        found = newest_leaderboard(connection)
        if found is None:
            return []
        created_at, entries = found
        shown = [e for e in entries if include_ensembles or not is_ensemble_model(str(e.get("model_id")))]
        present = present_models(connection, [str(entry.get("model_id")) for entry in shown])
    rows = [_entry(entry, created_at, present) for entry in shown]
    return sorted(rows, key=lambda row: (row.rank is None, row.rank or 0))[:MOST_ROWS]


@router.get("/models")
def models(context: Context) -> list[ModelEntry]:
    """The submitted models, by name."""
    with context.database.reading() as connection:
        rows = submitted_models(connection, MOST_ROWS)
    return [ModelEntry(**row) for row in rows]


def _entry(entry: Mapping[str, Any], created_at: datetime, present: set[str]) -> LeaderboardEntry:
    model_id = str(entry.get("model_id"))
    score = object_or_empty(entry.get("score"))
    metrics, ranking = object_or_empty(score.get("metrics")), object_or_empty(score.get("ranking"))
    named = {**({ranking["key"]: ranking.get("value")} if isinstance(ranking.get("key"), str) else {}), **metrics}
    return LeaderboardEntry(
        created_at=created_at,
        model_id=model_id,
        rank=entry.get("rank"),
        model_name=entry.get("model_name"),
        cruncher_name=entry.get("cruncher_name"),
        username=entry.get("cruncher_name"),
        # An ensemble runs inside the engine: no orchestrator has it.
        status="active" if model_id in present or is_ensemble_model(model_id) else "inactive",
        score_metrics=metrics,
        score_ranking=ranking,
        **{window: number_or_none(named.get(window)) for window in WINDOWS},
        **{name: value for name, value in named.items() if name not in RESERVED},
    )
