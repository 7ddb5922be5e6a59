"""Predictions with their scores: one by one, or a long series by time bucket."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, FromClause, Select, Subquery, and_, case, func, literal, select, true
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import col

from coordinator_node.db.reports.expressions import is_ensemble, number_in
from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.db.tables import PredictionRow, ScoreRow
from coordinator_node.entities.prediction import PredictionStatus

MOST_ROWS = 5000
MOST_POINTS = 500

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DAY = 86400
# Widths of buckets that a person can read off a chart, in seconds; whole days beyond.
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, _DAY)


@dataclass(frozen=True)
class PredictionQuestion:
    """Which predictions are asked for.

    `model_ids` None means every real model and no ensemble. `value_field` is the field of a score's result that counts.
    """

    start: datetime
    end: datetime
    model_ids: Sequence[str] | None
    value_field: str


def newest_predictions(connection: Connection, question: PredictionQuestion, limit: int) -> list[Record]:
    """The newest `limit` predictions one by one, oldest first."""
    points = _points(question)
    newest = select(points).order_by(
        points.c.performed_at.desc(), points.c.model_id.desc(), points.c.scope_key.desc(), points.c.id.desc()
    )
    return fetch(connection, newest.limit(limit))[::-1]


def predictions_over_time(connection: Connection, question: PredictionQuestion) -> list[Record]:
    """Every prediction, oldest first, if no series has more than MOST_POINTS and all fit MOST_ROWS.

    Else one row a series and time bucket, buckets as wide as it takes. A series is one model, scope_key and schedule.
    """
    width = _bucket_width(connection, question)
    if width is None:
        return newest_predictions(connection, question, MOST_ROWS)
    return fetch(connection, _bucketed(question, width))[::-1]


def _asked(question: PredictionQuestion) -> ColumnElement[bool]:
    row = PredictionRow
    models = (
        ~is_ensemble(col(row.model_id))
        if question.model_ids is None
        else col(row.model_id).in_(list(question.model_ids))
    )
    return and_(col(row.performed_at).between(question.start, question.end), models)


def _points(question: PredictionQuestion) -> Subquery:
    """The predictions asked for, each with its score of the newest generation."""
    row = PredictionRow
    score = (
        select(ScoreRow)
        .where(col(ScoreRow.prediction_id) == col(row.id))
        .order_by(col(ScoreRow.generation).desc().nulls_last(), col(ScoreRow.scored_at).desc())
        .limit(1)
        .lateral("score")
    )
    failed, reason = _failure(score)
    value = func.coalesce(
        number_in(score.c.result_jsonb, question.value_field), number_in(score.c.result_jsonb, "value")
    )
    return (
        select(
            col(row.id),
            col(row.model_id),
            col(row.prediction_config_id),
            col(row.scope_key),
            col(row.scope_jsonb).label("scope"),
            col(row.performed_at),
            (col(row.resolvable_at) - col(row.performed_at)).label("horizon"),
            failed.label("score_failed"),
            case((failed, reason)).label("score_failed_reason"),
            case((~failed, value)).label("score_value"),
            score.c.scored_at,
        )
        .select_from(row)
        .join(score, true(), isouter=True)
        .where(_asked(question))
        .subquery("points")
    )


def _failure(score: FromClause) -> tuple[ColumnElement[bool], ColumnElement[str]]:
    """Whether a prediction or its score failed, and the reason to give if so."""
    row = PredictionRow
    absent = col(row.status) == PredictionStatus.ABSENT.value
    # One whose first score failed keeps its status when it is scored again; the newest score says how it went.
    model_failed = and_(col(row.status) == PredictionStatus.FAILED.value, score.c.success.is_not(True))
    reason = func.coalesce(
        func.nullif(score.c.failed_reason, ""),
        func.nullif(col(row.failed_reason), ""),
        case((absent, "the model was absent"), else_="failed without a reason"),
    )
    # Older rows may hold no word on success; only a false one is a failure.
    return absent | model_failed | func.coalesce(score.c.success.is_(False), False), reason


def _bucket_width(connection: Connection, question: PredictionQuestion) -> timedelta | None:
    """How wide buckets must be; None where single rows fit."""
    row = PredictionRow
    series = (
        select(
            func.count().label("points"),
            func.min(col(row.performed_at)).label("first"),
            func.max(col(row.performed_at)).label("last"),
        )
        .where(_asked(question))
        .group_by(col(row.model_id), col(row.scope_key), col(row.prediction_config_id))
        .subquery("series")
    )
    found = connection.execute(
        select(
            func.count().label("series"),
            func.coalesce(func.max(series.c.points), 0).label("longest"),
            func.coalesce(func.sum(series.c.points), 0).label("all"),
            func.min(series.c.first).label("first"),
            func.max(series.c.last).label("last"),
        )
    ).one()
    if found.longest <= MOST_POINTS and found.all <= MOST_ROWS:
        return None
    return bucket_width(found.last - found.first, found.series)


def bucket_width(span: timedelta, series: int) -> timedelta:
    """The width of buckets, aligned to the epoch, that gives `series` series over `span` at most MOST_ROWS rows.

    No series gets more than MOST_POINTS. With more than MOST_ROWS series no width would do: the whole span is one.
    """
    points = max(1, min(MOST_POINTS, MOST_ROWS // series))
    # Aligned buckets may begin before the span does, so it meets one more than it is widths long.
    least = span.total_seconds() / max(1, points - 1)
    width = next((width for width in _WIDTHS if width >= least), math.ceil(least / _DAY) * _DAY)
    return timedelta(seconds=width)


def _bucketed(question: PredictionQuestion, width: timedelta) -> Select[*tuple[Any, ...]]:
    points = _points(question)
    bucket = func.date_bin(width, points.c.performed_at, EPOCH)
    # Equal documents have equal hashes, and comparing those costs a fraction of comparing text.
    scope_hash = func.jsonb_hash_extended(points.c.scope, literal(0))
    buckets = (
        select(
            points.c.model_id,
            points.c.prediction_config_id,
            points.c.scope_key,
            func.max(points.c.performed_at).label("performed_at"),
            _if_same(points.c.horizon).label("horizon"),
            case(
                (
                    func.bool_and(points.c.score_failed) == func.bool_or(points.c.score_failed),
                    func.bool_and(points.c.score_failed),
                )
            ).label("score_failed"),
            _if_same(points.c.score_failed_reason).label("score_failed_reason"),
            func.avg(points.c.score_value).label("score_value"),
            _if_same(points.c.scored_at).label("scored_at"),
            func.min(points.c.id).label("sample_id"),
            (func.min(scope_hash) == func.max(scope_hash)).label("one_scope"),
        )
        .group_by(points.c.model_id, points.c.scope_key, points.c.prediction_config_id, bucket)
        .order_by(func.max(points.c.performed_at).desc(), points.c.model_id.desc(), points.c.scope_key.desc())
        .limit(MOST_ROWS)
        .subquery("buckets")
    )
    sample = PredictionRow
    return (
        select(buckets, case((buckets.c.one_scope, col(sample.scope_jsonb)), else_=None).label("scope"))
        .join(sample, col(sample.id) == buckets.c.sample_id)
        .order_by(buckets.c.performed_at.desc(), buckets.c.model_id.desc(), buckets.c.scope_key.desc())
    )


def _if_same(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column's value in a group of rows if all have the same, else NULL."""
    same = and_(func.count(column) == func.count(), func.min(column) == func.max(column))
    return case((same, func.min(column)))
