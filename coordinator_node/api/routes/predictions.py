"""Predictions and the snapshots that sum them up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from coordinator_node.api.answers import json_answer
from coordinator_node.api.auth import READ
from coordinator_node.api.context import Context
from coordinator_node.api.pages import PAGED, Paging
from coordinator_node.api.parameters import LastDays, Limit, ModelId, ModelIds, SinceUntil
from coordinator_node.api.points import flat, naive_text, offset_text
from coordinator_node.crunch_config import PredictionScope
from coordinator_node.db.json_text import parse_json
from coordinator_node.db.reports.predictions import (
    PredictionPlace,
    PredictionQuestion,
    newest_predictions,
    predictions_over_time,
)
from coordinator_node.db.reports.records import Record
from coordinator_node.db.reports.snapshots import SnapshotPlace, newest_snapshots
from coordinator_node.schemas.report.predictions import PredictionPoint, SnapshotEntry
from coordinator_node.schemas.report.wire import object_or_empty

MOST_ON_PAGE = 1000

router = APIRouter(prefix="/reports", tags=["predictions"], dependencies=[READ])


@router.get("/predictions", response_model=list[PredictionPoint], responses=PAGED)
def predictions(
    context: Context,
    request: Request,
    model_ids: ModelIds,
    during: LastDays,
    pages: Paging,
    limit: Annotated[
        int | None,
        Query(ge=1, le=MOST_ON_PAGE, description="Only the newest so many, one by one; the pages go back in time."),
    ] = None,
) -> Response:
    """Predictions with their scores, oldest first; an ensemble's only where projectIds names it.

    With `limit`, the newest so many of the range. Without, the whole range: one row a prediction while no series (a
    model, scope_key and schedule) has more than 500 and all fit 5,000 rows; beyond that one row a series and time
    bucket, where score_value is the mean and what differs within the bucket is null.
    """
    question = PredictionQuestion(during.start, during.end, model_ids, context.config.aggregation.value_field)
    after = pages.after(PredictionPlace)
    with context.database.reading() as connection:
        if limit is None and after is None:
            rows = predictions_over_time(connection, question)
        else:
            limit = limit or MOST_ON_PAGE
            found = newest_predictions(connection, question, limit + 1, after)
            rows = pages.page(found, limit, PredictionPlace.of)[::-1]
    return json_answer(request, _points(rows, context.config.scope), pages.next)


@router.get("/snapshots", responses=PAGED)
def snapshots(
    context: Context, during: SinceUntil, pages: Paging, model_id: ModelId = None, limit: Limit = 100
) -> list[SnapshotEntry]:
    """Snapshots, newest first by the end of their period; `since` and `until` bound that end.

    An ensemble's only where model_id names it.
    """
    after = pages.after(SnapshotPlace)
    with context.database.reading() as connection:
        found = newest_snapshots(
            connection, model_id=model_id, since=during.start, until=during.end, limit=limit + 1, after=after
        )
    rows = pages.page(found, limit, SnapshotPlace.of)
    return [SnapshotEntry(**{**row, "result_summary": object_or_empty(row["result_summary"])}) for row in rows]


def _points(rows: Sequence[Record], defaults: PredictionScope) -> list[dict[str, Any]]:
    """The rows of `PredictionPoint`. Thousands of predictions have few scopes and horizons, which are read once."""
    known: dict[tuple[str | None, str, timedelta | None], dict[str, Any]] = {}
    points = []
    for row in rows:
        key = row["scope"], row["scope_key"], row["horizon"]
        own = known.get(key)
        if own is None:
            own = known[key] = _scope(*key, defaults)
        points.append(
            {
                "model_id": row["model_id"],
                "prediction_config_id": row["prediction_config_id"],
                "scope_key": row["scope_key"],
                "score_value": row["score_value"],
                "score_failed": row["score_failed"],
                "score_failed_reason": row["score_failed_reason"],
                "scored_at": offset_text(row["scored_at"]),
                "performed_at": naive_text(row["performed_at"]),
                **own,
            }
        )
    return points


def _scope(
    document: str | None, scope_key: str, horizon: timedelta | None, defaults: PredictionScope
) -> dict[str, Any]:
    """What a row says of its scope, of the scope's JSON text."""
    value = parse_json(document)
    scope = None if value is None else object_or_empty(value)
    known = {} if scope is None else {"subject": defaults.subject, "step_seconds": defaults.step_seconds, **scope}
    return {"scope": scope, **flat(known, scope_key, _seconds(horizon))}


def _seconds(duration: timedelta | None) -> int | float | None:
    if duration is None:
        return None
    seconds = duration.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds
