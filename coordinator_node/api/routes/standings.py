"""How the models stood over time, and what their snapshots held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from coordinator_node.api.answers import UNCHANGED, TaggedRoute, json_answer
from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context, ReportContext
from coordinator_node.api.parameters import LastDays, ModelIds, WithEnsembles
from coordinator_node.api.points import flat, naive_text, numbers, offset_text
from coordinator_node.crunch_config import Aggregation
from coordinator_node.db.json_text import parse_object
from coordinator_node.db.reports.records import Record
from coordinator_node.db.reports.scopes import known_scopes
from coordinator_node.db.reports.snapshot_series import (
    SnapshotQuestion,
    latest_snapshots,
    snapshots_over_time,
    standings_over_time,
)
from coordinator_node.schemas.report.standings import ScopeStanding, SnapshotPoint, Standing, reserved

router = APIRouter(
    prefix="/reports/models",
    tags=["models over time"],
    dependencies=[PUBLIC],
    route_class=TaggedRoute,
    responses=UNCHANGED,
)

_STANDING, _SCOPE, _SNAPSHOT = reserved(Standing), reserved(ScopeStanding), reserved(SnapshotPoint)


@router.get("/global", response_model=list[Standing])
def global_standings(
    context: Context, request: Request, model_ids: ModelIds, during: LastDays, include_ensembles: WithEnsembles = False
) -> Response:
    """How each model stood over time, oldest first, then by model.

    One row for each moment at which a snapshot of the model ended, while no model has more than 500 of them in the
    range and all fit 5,000 rows; beyond that one row a model and time bucket with a snapshot in it, as of the bucket's
    end.
    """
    question = _question(context, model_ids, during.start, during.end, include_ensembles)
    with context.database.reading() as connection:
        rows = standings_over_time(connection, question, by_scope=False)
        scopes = known_scopes(connection, context.config)
    told, common = _Told(question.aggregation, context.config.metrics, _STANDING), _common(scopes)
    return json_answer(request, [told.standing(row, common) for row in rows], tagged=True)


@router.get("/params", response_model=list[ScopeStanding])
def scope_standings(
    context: Context, request: Request, model_ids: ModelIds, during: LastDays, include_ensembles: WithEnsembles = False
) -> Response:
    """How each model stood over time in each scope, oldest first, then by model and scope_key; else as models/global.

    The metrics are the windows over that scope's predictions alone.
    """
    question = _question(context, model_ids, during.start, during.end, include_ensembles)
    with context.database.reading() as connection:
        rows = standings_over_time(connection, question, by_scope=True)
        scopes = known_scopes(connection, context.config)
    told = _Told(question.aggregation, (), _SCOPE)
    known = {key: _scope(key, scopes) for key in {row["scope_key"] for row in rows}}
    return json_answer(request, [told.standing(row, known[row["scope_key"]]) for row in rows], tagged=True)


@router.get("/metrics", response_model=list[SnapshotPoint])
def snapshot_metrics(
    context: Context, request: Request, model_ids: ModelIds, during: LastDays, include_ensembles: WithEnsembles = False
) -> Response:
    """The numbers of the models' snapshots over time, oldest first, then by model.

    One row a snapshot while no model has more than 500 of them in the range and all fit 5,000 rows; beyond that one row
    a model and time bucket: its numbers are means weighted by prediction_count, its counts sums.
    """
    question = _question(context, model_ids, during.start, during.end, include_ensembles)
    with context.database.reading() as connection:
        rows = snapshots_over_time(connection, question)
        scopes = known_scopes(connection, context.config)
    measures, common = dict.fromkeys(context.config.metrics), _common(scopes)
    return json_answer(request, [_snapshot(row, measures, common) for row in rows], tagged=True)


@router.get("/summary", response_model=list[SnapshotPoint])
def latest_metrics(
    context: Context, request: Request, model_ids: ModelIds, during: LastDays, include_ensembles: WithEnsembles = False
) -> Response:
    """The latest snapshot of each model in the range, by model."""
    question = _question(context, model_ids, during.start, during.end, include_ensembles)
    with context.database.reading() as connection:
        rows = latest_snapshots(connection, question)
        scopes = known_scopes(connection, context.config)
    measures, common = dict.fromkeys(context.config.metrics), _common(scopes)
    return json_answer(request, [_snapshot(row, measures, common) for row in rows], tagged=True)


def _question(
    context: ReportContext, model_ids: list[str] | None, start: datetime, end: datetime, include_ensembles: bool
) -> SnapshotQuestion:
    config = context.config
    return SnapshotQuestion(start, end, model_ids, include_ensembles, config.aggregation, config.metrics_window_hours)


class _Told:
    """What all rows of one answer about standings have in common, so that thousands of them are made quickly."""

    def __init__(self, aggregation: Aggregation, measures: Sequence[str], taken: frozenset[str]) -> None:
        self._windows = [(name, f"mean_{place}") for place, name in enumerate(aggregation.windows)]
        self._key, self._direction = aggregation.ranking_key, aggregation.ranking_direction
        self._measures = dict.fromkeys(measures)
        self._taken = taken

    def standing(self, row: Record, common: Mapping[str, Any]) -> dict[str, Any]:
        """One row, with what its scope says in `common`."""
        metrics = numbers(parse_object(row["summary"]))
        for name, column in self._windows:
            metrics[name] = row[column]
        taken = self._taken
        return {
            **{name: value for name, value in {**self._measures, **metrics}.items() if name not in taken},
            **common,
            "model_id": row["model_id"],
            "performed_at": naive_text(row["as_of"]),
            "score_metrics": metrics,
            "score_ranking": {"key": self._key, "value": metrics.get(self._key), "direction": self._direction},
        }


def _snapshot(row: Record, measures: Mapping[str, None], common: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {**measures, **numbers(row["numbers"])}
    return {
        **{name: value for name, value in metrics.items() if name not in _SNAPSHOT},
        **common,
        "model_id": row["model_id"],
        "performed_at": naive_text(row["period_end"]),
        "period_start": offset_text(row["period_start"]),
        "period_end": offset_text(row["period_end"]),
        "prediction_count": row["prediction_count"],
    }


def _common(scopes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What all scopes have in common; null where they differ, or there are none."""
    each = [_flat(scope_key, scopes) for scope_key in scopes] or [flat({}, None, None)]
    first, *others = each
    return {name: value if all(other[name] == value for other in others) else None for name, value in first.items()}


def _scope(scope_key: str, scopes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {**_flat(scope_key, scopes), "scope_key": scope_key, "scope": scopes.get(scope_key)}


def _flat(scope_key: str, scopes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    scope = scopes.get(scope_key, {})
    return flat(scope, scope_key, scope.get("resolve_horizon_seconds"))
