"""The models and their leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from coordinator_node.api.access import Tier
from coordinator_node.api.answers import UNCHANGED, Encoded, TaggedRoute
from coordinator_node.api.auth import PUBLIC, TierGuard
from coordinator_node.api.context import Context, ReportContext
from coordinator_node.api.layout import value_names
from coordinator_node.api.parameters import WithEnsembles
from coordinator_node.api.ready import Ready
from coordinator_node.db.reports.leaderboard import (
    leaderboard_version,
    newest_leaderboard,
    present_models,
    submitted_models,
)
from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.schemas.report.competition import RESERVED, WINDOWS, LeaderboardEntry, ModelEntry
from coordinator_node.schemas.report.wire import number_or_none, object_or_empty, of_type

router = APIRouter(prefix="/reports", tags=["leaderboard"], dependencies=[PUBLIC], route_class=TaggedRoute)

MOST_ROWS = 5000


@router.get("/leaderboard", response_model=list[LeaderboardEntry], responses=UNCHANGED)
async def leaderboard(context: Context, request: Request, include_ensembles: WithEnsembles = False) -> Response:
    """The newest leaderboard, by rank; what is not ranked comes last. Empty before the first.

    It changes once a score cycle: send its ETag as If-None-Match, and 304 says that it is still the same.
    """
    return (await _newest(context, include_ensembles)).answer(request)


@router.get("/models", responses=UNCHANGED)
def models(context: Context) -> list[ModelEntry]:
    """The submitted models, by name."""
    with context.database.reading() as connection:
        rows = submitted_models(connection, MOST_ROWS)
    return [ModelEntry(**row) for row in rows]


READY = {"/reports/leaderboard": Ready(leaderboard, TierGuard(Tier.PUBLIC), lambda context: _newest(context, False))}


async def _newest(context: ReportContext, include_ensembles: bool) -> Encoded:
    return await context.answers.get(
        ("leaderboard", include_ensembles), lambda last: _leaderboard(context, include_ensembles, last)
    )


def _leaderboard(context: ReportContext, include_ensembles: bool, last: Encoded | None) -> Encoded:
    with context.database.reading() as connection:
        version = leaderboard_version(connection)
        if last is not None and last.version == version:
            return last
        found = newest_leaderboard(connection)
        if found is None:
            return Encoded.of(version, [])
        created_at, entries = found
        shown = [e for e in entries if include_ensembles or not is_ensemble_model(str(e.get("model_id")))]
        present = present_models(connection, [str(entry.get("model_id")) for entry in shown])
    names = value_names(context.config)
    rows = [_entry(entry, created_at, present, names) for entry in shown]
    return Encoded.of(version, sorted(rows, key=lambda row: (row.rank is None, row.rank or 0))[:MOST_ROWS])


def _entry(entry: Mapping[str, Any], created_at: datetime, present: set[str], names: Sequence[str]) -> LeaderboardEntry:
    model_id = str(entry.get("model_id"))
    cruncher = of_type(entry.get("cruncher_name"), str)
    score = object_or_empty(entry.get("score"))
    metrics, ranking = object_or_empty(score.get("metrics")), object_or_empty(score.get("ranking"))
    named = {
        **dict.fromkeys(names),
        **({ranking["key"]: ranking.get("value")} if isinstance(ranking.get("key"), str) else {}),
        **metrics,
    }
    return LeaderboardEntry(
        created_at=created_at,
        model_id=model_id,
        rank=of_type(entry.get("rank"), int),
        model_name=of_type(entry.get("model_name"), str),
        cruncher_name=cruncher,
        username=cruncher,
        # An ensemble runs inside the engine: no orchestrator has it.
        status="active" if model_id in present or is_ensemble_model(model_id) else "inactive",
        score_metrics=metrics,
        score_ranking=ranking,
        **{window: number_or_none(named.get(window)) for window in WINDOWS},
        **{name: value for name, value in named.items() if name not in RESERVED},
    )
