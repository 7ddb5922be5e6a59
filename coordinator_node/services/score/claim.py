"""Which predictions one pass works on, held by row locks until its transaction ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Row, text
from sqlmodel import Session

from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus

# The expression is that of the index ix_predictions_claim.
_CLAIM = text(
    """
    SELECT id, input_id, model_id, prediction_config_id, scope_key, scope_jsonb, exec_time_ms,
           inference_output_jsonb, meta_jsonb, performed_at, resolvable_at, attempts
    FROM predictions
    WHERE status = 'PENDING' AND COALESCE(next_attempt_at, resolvable_at) <= :now
    ORDER BY COALESCE(next_attempt_at, resolvable_at)
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
)


class GroupKey(NamedTuple):
    """What shares one ground truth."""

    input_id: str
    scope_key: str
    resolvable_at: datetime


@dataclass
class ClaimedPrediction(PredictionRecord):
    """A prediction whose row is locked; `attempts` is how often its ground truth was looked for in vain."""

    attempts: int = 0

    @property
    def due_at(self) -> datetime:
        """When its outcome is known; the column is never NULL."""
        return self.resolvable_at or self.performed_at

    @property
    def group(self) -> GroupKey:
        """The group whose ground truth it is scored against."""
        return GroupKey(self.input_id, self.scope_key, self.due_at)


def claim_due(session: Session, now: datetime, limit: int) -> list[ClaimedPrediction]:
    """The predictions that are longest due, at most `limit`, locked; those that another worker holds are left out."""
    rows = session.connection().execute(_CLAIM, {"now": now, "limit": limit}).all()
    return [_claimed(row) for row in rows]


def grouped(claimed: Iterable[ClaimedPrediction]) -> dict[GroupKey, list[ClaimedPrediction]]:
    """The predictions by the ground truth they share, in the order of the first of each group."""
    groups: dict[GroupKey, list[ClaimedPrediction]] = {}
    for prediction in claimed:
        groups.setdefault(prediction.group, []).append(prediction)
    return groups


def _claimed(row: Row[tuple[object, ...]]) -> ClaimedPrediction:
    return ClaimedPrediction(
        id=row.id,
        input_id=row.input_id,
        model_id=row.model_id,
        prediction_config_id=row.prediction_config_id,
        scope_key=row.scope_key,
        scope=row.scope_jsonb if isinstance(row.scope_jsonb, dict) else {},
        status=PredictionStatus.PENDING,
        exec_time_ms=row.exec_time_ms,
        inference_output=row.inference_output_jsonb or {},
        meta=row.meta_jsonb or {},
        performed_at=row.performed_at,
        resolvable_at=row.resolvable_at,
        attempts=row.attempts,
    )
