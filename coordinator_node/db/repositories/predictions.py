"""Predictions and the schedules they were made for, for operators' own code."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from coordinator_node.db.repositories.scores import score_entity
from coordinator_node.db.repositories.statements import committing, fresh, newest, upsert
from coordinator_node.db.repositories.values import finite, storable
from coordinator_node.db.tables import PredictionRow, ScheduledPredictionConfigRow, ScoreRow
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus, ScoredPrediction
from coordinator_node.entities.times import as_utc


class DBPredictionRepository:
    """Reads and writes predictions; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, prediction: PredictionRecord) -> None:
        """Insert a prediction, or update the one of that id."""
        self.save_all([prediction])

    def save_all(self, predictions: Iterable[PredictionRecord]) -> None:
        """Insert or update predictions by id, all or none. An existing row keeps what is not the entity's.

        A `resolvable_at` of None is stored as `performed_at`.

        Raises:
            ValueError: a prediction holds what the database cannot, such as NaN; the message names it.
        """
        rows = [_values(prediction) for prediction in predictions]
        with committing(self._session):
            upsert(self._session, PredictionRow, rows)

    def find(
        self,
        *,
        status: str | list[str] | None = None,
        scope_key: str | None = None,
        scope_key_prefix: str | None = None,
        model_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        resolvable_before: datetime | None = None,
        limit: int | None = None,
    ) -> list[PredictionRecord]:
        """The newest `limit` predictions that meet every condition, in ascending time.

        Args:
            status: one status or several; None means any, [] none.
            scope_key: the whole scope_key.
            scope_key_prefix: what the scope_key starts with, taken literally.
            model_id: whose predictions.
            since: performed at or after it.
            until: performed at or before it.
            resolvable_before: resolvable at or before it.
            limit: how many at most; None means all.
        """
        row = PredictionRow
        query = select(row)
        if status is not None:
            query = query.where(col(row.status).in_([status] if isinstance(status, str) else status))
        if scope_key is not None:
            query = query.where(col(row.scope_key) == scope_key)
        if scope_key_prefix is not None:
            query = query.where(col(row.scope_key).startswith(scope_key_prefix, autoescape=True))
        if model_id is not None:
            query = query.where(col(row.model_id) == model_id)
        if since is not None:
            query = query.where(col(row.performed_at) >= as_utc(since))
        if until is not None:
            query = query.where(col(row.performed_at) <= as_utc(until))
        if resolvable_before is not None:
            query = query.where(col(row.resolvable_at) <= as_utc(resolvable_before))
        found = newest(self._session, query, col(row.performed_at), col(row.id), limit=limit)
        return [prediction_entity(one) for one in found]

    def fetch_active_configs(self) -> list[dict[str, Any]]:
        """The schedules that run, in order: id, scope_key, scope_template, schedule, active, order, meta."""
        row = ScheduledPredictionConfigRow
        query = select(row).where(col(row.active)).order_by(col(row.order), col(row.id))
        return [
            {
                "id": found.id,
                "scope_key": found.scope_key,
                "scope_template": found.scope_template_jsonb or {},
                "schedule": found.schedule_jsonb or {},
                "active": found.active,
                "order": found.order,
                "meta": found.meta_jsonb or {},
            }
            for found in fresh(self._session, query)
        ]

    def query_scores(
        self, *, model_ids: list[str], _from: datetime | None = None, to: datetime | None = None
    ) -> dict[str, list[ScoredPrediction]]:
        """The scored predictions of models, each with its newest score, in ascending time.

        Args:
            model_ids: whose; each of them is a key of the answer, with [] where nothing was scored.
            _from: performed at or after it.
            to: performed at or before it.
        """
        prediction, score = PredictionRow, ScoreRow
        query = (
            select(prediction, score)
            .join(score, col(score.prediction_id) == col(prediction.id))
            .where(col(prediction.model_id).in_(model_ids))
            .order_by(
                col(prediction.performed_at),
                col(prediction.id),
                # A rescore's score goes before all others, whatever their times.
                func.greatest(col(score.generation), 1),
                col(score.scored_at),
                col(score.id),
            )
        )
        if _from is not None:
            query = query.where(col(prediction.performed_at) >= as_utc(_from))
        if to is not None:
            query = query.where(col(prediction.performed_at) <= as_utc(to))
        # Of several scores of one prediction the last in order, the newest, stays.
        newest_of = {
            found.id: (found, its_score)
            for found, its_score in self._session.exec(query, execution_options={"populate_existing": True})
        }
        scored: dict[str, list[ScoredPrediction]] = {model_id: [] for model_id in model_ids}
        for found, its_score in newest_of.values():
            entity = ScoredPrediction(**vars(prediction_entity(found)), score=score_entity(its_score))
            scored[found.model_id].append(entity)
        return scored


def prediction_entity(row: PredictionRow) -> PredictionRecord:
    """The row as the public entity; a document that is NULL is {}."""
    return PredictionRecord(
        id=row.id,
        input_id=row.input_id,
        model_id=row.model_id,
        prediction_config_id=row.prediction_config_id,
        scope_key=row.scope_key,
        scope=row.scope_jsonb or {},
        status=PredictionStatus(row.status),
        exec_time_ms=row.exec_time_ms,
        inference_output=row.inference_output_jsonb or {},
        meta=row.meta_jsonb or {},
        performed_at=row.performed_at,
        resolvable_at=row.resolvable_at,
    )


def _values(prediction: PredictionRecord) -> dict[str, Any]:
    name = f"prediction {prediction.id!r}"
    performed_at = as_utc(prediction.performed_at)
    return {
        "id": prediction.id,
        "input_id": prediction.input_id,
        "model_id": prediction.model_id,
        "prediction_config_id": prediction.prediction_config_id,
        "scope_key": prediction.scope_key,
        "scope_jsonb": storable(name, "scope", prediction.scope),
        "status": PredictionStatus(prediction.status).value,
        "exec_time_ms": finite(name, "exec_time_ms", prediction.exec_time_ms),
        "inference_output_jsonb": storable(name, "inference_output", prediction.inference_output),
        "meta_jsonb": storable(name, "meta", prediction.meta),
        "performed_at": performed_at,
        "resolvable_at": performed_at if prediction.resolvable_at is None else as_utc(prediction.resolvable_at),
    }
