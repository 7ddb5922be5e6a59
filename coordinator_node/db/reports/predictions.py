"""Predictions with their scores: one by one, or a long series by time bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, FromClause, Subquery, Text, and_, case, cast, func, select, text, true, tuple_
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import col

from coordinator_node.db.reports.expressions import IS_REAL_MODEL, is_ensemble, number_in
from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.db.reports.widths import MOST_POINTS, MOST_POINTS_READ, MOST_ROWS, chosen_width
from coordinator_node.db.series.buckets import bucket_begin
from coordinator_node.db.series.mark import kept_span
from coordinator_node.db.series.prediction_sums import COLUMNS, merged, summed_rows
from coordinator_node.db.series.spans import (
    LEVELS,
    MICROSECOND,
    Span,
    bounded,
    coarsest_level,
    cover,
    kept_buckets,
    mostly_kept,
)
from coordinator_node.db.tables import PredictionRow, ScoreRow
from coordinator_node.entities.prediction import PredictionStatus


@dataclass(frozen=True)
class PredictionQuestion:
    """Which predictions are asked for.

    `model_ids` None means every real model and no ensemble. `value_field` is the field of a score's result that counts.
    """

    start: datetime
    end: datetime
    model_ids: Sequence[str] | None
    value_field: str

    @property
    def span(self) -> Span:
        """[begin, end), as buckets of predictions are."""
        return Span(self.start, self.end + MICROSECOND)


class PredictionPlace(NamedTuple):
    """Where a prediction stands in the order, newest first."""

    performed_at: datetime
    model_id: str
    scope_key: str
    id: str

    @classmethod
    def of(cls, row: Record) -> PredictionPlace:
        """The place of a row."""
        return cls(row["performed_at"], row["model_id"], row["scope_key"], row["id"])


def newest_predictions(
    connection: Connection, question: PredictionQuestion, limit: int, after: PredictionPlace | None = None
) -> list[Record]:
    """The newest `limit` predictions one by one, newest first, those behind `after`."""
    points = _points(question)
    place = (points.c.performed_at, points.c.model_id, points.c.scope_key, points.c.id)
    newest = select(points).order_by(*(column.desc() for column in place)).limit(limit)
    if after is not None:
        newest = newest.where(tuple_(*place) < tuple_(*after))
    return fetch(connection, newest)


def predictions_over_time(connection: Connection, question: PredictionQuestion) -> list[Record]:
    """Every prediction, oldest first, if no series has more than MOST_POINTS and all fit MOST_ROWS.

    Else one row a series and time bucket, buckets as wide as it takes. A series is one model, scope_key and schedule.
    """
    if _single_rows_fit(connection, question):
        return newest_predictions(connection, question, MOST_ROWS)[::-1]
    return _bucketed(connection, question)


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
            cast(col(row.scope_jsonb), Text).label("scope"),
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


def _single_rows_fit(connection: Connection, question: PredictionQuestion) -> bool:
    """Whether no series has more than MOST_POINTS and all fit MOST_ROWS; nothing beyond that is looked at."""
    row = PredictionRow
    some = (
        select(col(row.model_id), col(row.scope_key), col(row.prediction_config_id))
        .where(_asked(question))
        .limit(MOST_ROWS + 1)
        .subquery("some")
    )
    counted = select(func.count().label("points")).select_from(some).group_by(*some.c).subquery("counted")
    found = connection.execute(
        select(func.coalesce(func.max(counted.c.points), 0), func.coalesce(func.sum(counted.c.points), 0))
    ).one()
    return bool(found[0] <= MOST_POINTS and found[1] <= MOST_ROWS)


def _bucketed(connection: Connection, question: PredictionQuestion) -> list[Record]:
    kept = kept_span(connection, question.value_field)
    if mostly_kept(question.span, kept):
        return _in_buckets(connection, question, kept, _shape(connection, question, kept))
    # To count a million rows takes half as long as to sum them up, so that a glance must do. Where it missed a series,
    # which shows in the answer, they are counted after all.
    glance = _glance(connection, question)
    rows = _in_buckets(connection, question, kept, glance)
    series = {(row["model_id"], row["scope_key"], row["prediction_config_id"]) for row in rows}
    if len(series) == glance["series"] and len(rows) < MOST_ROWS:
        return rows
    return _in_buckets(connection, question, kept, _shape(connection, question, kept))


def _in_buckets(connection: Connection, question: PredictionQuestion, kept: Span | None, shape: Record) -> list[Record]:
    """A row a series and bucket, buckets as wide as so many series and points need."""
    if not shape["series"]:
        return []
    width = chosen_width(shape["last"] - shape["first"], shape["series"], shape["points"])
    values: Record = {"value_field": question.value_field, "width": width, "limit": MOST_ROWS}
    source = _pieces(question, kept, coarsest_level(width.total_seconds()), values)
    buckets = merged(source, bucket_begin("begins_at", ":width"))
    return fetch(connection, text(_TOLD.format(buckets=buckets)), values)[::-1]


def _glance(connection: Connection, question: PredictionQuestion) -> Record:
    """What `_shape` gives, seen quickly: series are those of the newest rows, and points counted up to what matters."""
    values: Record = {"some": MOST_ROWS + 1, "many": MOST_POINTS_READ + 1}
    inside = bounded("performed_at", [question.span], values, ends_belong=False)
    condition = f"{inside} AND {_among(question, values).format('model_id')}"
    return fetch(connection, text(_GLANCE.format(condition=condition)), values)[0]


def _shape(connection: Connection, question: PredictionQuestion, kept: Span | None) -> Record:
    """How many series and points there are, and from when to when, by the widest buckets that there are."""
    values: Record = {"start": question.start}
    among = _among(question, values)
    parts = cover(question.span, (), kept, LEVELS[-1])
    statement = _SHAPE.format(
        in_kept=f"{kept_buckets('begins_at', parts.kept, values, ends_belong=False)} AND {among.format('model_id')}",
        in_rows=f"{bounded('performed_at', parts.rows, values, ends_belong=False)} AND {among.format('model_id')}",
    )
    return fetch(connection, text(statement), values)[0]


def _pieces(question: PredictionQuestion, kept: Span | None, coarsest: int, values: Record) -> str:
    """What to read sums FROM: kept buckets, and the rows themselves where none are kept or wanted."""
    parts = cover(question.span, (), kept, coarsest)
    among = _among(question, values)
    in_rows = bounded("prediction.performed_at", parts.rows, values, ends_belong=False)
    in_kept = kept_buckets("begins_at", parts.kept, values, ends_belong=False)
    rows = summed_rows(_IN_WIDTH, f"{in_rows} AND {among.format('prediction.model_id')}")
    return f"""(
        SELECT {COLUMNS} FROM prediction_buckets WHERE {in_kept} AND {among.format("model_id")}
        UNION ALL {rows}
    ) AS pieces ({COLUMNS})"""  # noqa: S608 - put together from constants and names of parameters


def _among(question: PredictionQuestion, values: Record) -> str:
    """The SQL condition on a model's id, which is to be filled in."""
    if question.model_ids is None:
        return IS_REAL_MODEL
    values["model_ids"] = list(question.model_ids)
    return "{} = ANY(CAST(:model_ids AS text[]))"


_IN_WIDTH = bucket_begin("prediction.performed_at", ":width")
_GLANCE = """
    WITH newest AS MATERIALIZED (
        SELECT model_id, scope_key, COALESCE(prediction_config_id, '') AS config, performed_at
        FROM predictions
        WHERE {condition} ORDER BY performed_at DESC LIMIT :some
    )
    SELECT (SELECT count(*) FROM (SELECT DISTINCT model_id, scope_key, config FROM newest) AS seen) AS series,
           (SELECT count(*) FROM (SELECT FROM predictions WHERE {condition} LIMIT :many) AS counted) AS points,
           (SELECT performed_at FROM predictions WHERE {condition} ORDER BY performed_at LIMIT 1) AS first,
           (SELECT max(performed_at) FROM newest) AS last
"""
_SHAPE = """
    SELECT count(*) AS series, COALESCE(CAST(sum(points) AS bigint), 0) AS points,
           greatest(min(first), :start) AS first, max(last) AS last
    FROM (
        SELECT sum(points) AS points, min(first) AS first, max(last) AS last
        FROM (
            SELECT model_id, scope_key, prediction_config_id, points, begins_at, performed_at
            FROM prediction_buckets WHERE {in_kept}
            UNION ALL
            SELECT model_id, scope_key, COALESCE(prediction_config_id, ''), count(*), min(performed_at),
                   max(performed_at)
            FROM predictions WHERE {in_rows} GROUP BY 1, 2, 3
        ) AS pieces (model_id, scope_key, prediction_config_id, points, first, last)
        GROUP BY model_id, scope_key, prediction_config_id
    ) AS series
"""
# What differs within a bucket is null. Equal documents have equal hashes, so that one of them stands for all; one for
# each bucket would be thousands of predictions to look up.
_TOLD = """
    WITH bucket AS MATERIALIZED ({buckets} ORDER BY 6 DESC, 2 DESC, 3 DESC LIMIT :limit),
    scopes AS (
        SELECT sample.hash, CAST(predictions.scope_jsonb AS text) AS scope
        FROM (
            SELECT scope_hash_least AS hash, min(sample_id) AS id FROM bucket
            WHERE scope_hash_least = scope_hash_greatest GROUP BY 1
        ) AS sample JOIN predictions ON predictions.id = sample.id
    )
    SELECT bucket.model_id, NULLIF(bucket.prediction_config_id, '') AS prediction_config_id, bucket.scope_key,
           bucket.performed_at,
           CASE WHEN horizon_least = horizon_greatest THEN horizon_least END AS horizon,
           CASE WHEN failed = 0 THEN false WHEN failed = points THEN true END AS score_failed,
           CASE WHEN reason_count = points AND reason_least = reason_greatest THEN reason_least
           END AS score_failed_reason,
           value_total / NULLIF(value_count, 0) AS score_value,
           CASE WHEN scored_count = points AND scored_least = scored_greatest THEN scored_least END AS scored_at,
           scopes.scope
    FROM bucket
    LEFT JOIN scopes ON scopes.hash = bucket.scope_hash_least AND scope_hash_least = scope_hash_greatest
    ORDER BY bucket.performed_at DESC, bucket.model_id DESC, bucket.scope_key DESC
"""
