"""Which predictions one pass works on, held by row locks until its transaction ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus

# The columns are those of ClaimedPrediction, in its order; the expression is that of the index ix_predictions_claim.
_CLAIM = text(
    """
    SELECT id, input_id, model_id, scope_key, CAST(inference_output_jsonb AS text), resolvable_at, attempts,
           commitment_id
    FROM predictions
    WHERE status = 'PENDING' AND COALESCE(next_attempt_at, resolvable_at) <= :now
    ORDER BY COALESCE(next_attempt_at, resolvable_at)
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
)
_RECORDS = text(
    """
    SELECT id, input_id, model_id, prediction_config_id, scope_key, scope_jsonb, status, exec_time_ms,
           inference_output_jsonb, meta_jsonb, performed_at, resolvable_at
    FROM predictions WHERE id = ANY(CAST(:ids AS text[]))
    """
)

_COMMITTED_AT = text("SELECT id, committed_at FROM merkle_commitments WHERE id = ANY(CAST(:ids AS text[]))")


class GroupKey(NamedTuple):
    """What shares one ground truth."""

    input_id: str
    scope_key: str
    resolvable_at: datetime


class ClaimedPrediction(NamedTuple):
    """What scoring needs of a prediction whose row is locked.

    `output` is what the model said, as JSON text; `attempts` is how often its ground truth was looked for in vain.
    `commitment_id` is where it was committed before its outcome; None where it was not.
    """

    id: str
    input_id: str
    model_id: str
    scope_key: str
    output: str | None
    resolvable_at: datetime
    attempts: int
    commitment_id: str | None = None


def claim_due(session: Session, now: datetime, limit: int) -> list[ClaimedPrediction]:
    """The predictions that are longest due, at most `limit`, locked; those that another worker holds are left out."""
    rows = session.connection().execute(_CLAIM, {"now": now, "limit": limit})
    return [ClaimedPrediction._make(row) for row in rows]


def committed_in_time(
    session: Session, claimed: Sequence[ClaimedPrediction]
) -> tuple[list[ClaimedPrediction], list[ClaimedPrediction]]:
    """The predictions that may be scored, and those whose commitment is not older than their resolvable_at."""
    ids = list({prediction.commitment_id for prediction in claimed if prediction.commitment_id})
    found = session.connection().execute(_COMMITTED_AT, {"ids": ids}).all() if ids else []
    committed_at: dict[str | None, datetime] = {row.id: row.committed_at for row in found}
    in_time: list[ClaimedPrediction] = []
    late: list[ClaimedPrediction] = []
    for prediction in claimed:
        at = committed_at.get(prediction.commitment_id)
        (in_time if at is None or at < prediction.resolvable_at else late).append(prediction)
    return in_time, late


def grouped(claimed: Iterable[ClaimedPrediction]) -> dict[GroupKey, list[ClaimedPrediction]]:
    """The predictions by the ground truth they share, in the order of the first of each group."""
    groups: dict[GroupKey, list[ClaimedPrediction]] = {}
    for prediction in claimed:
        key = GroupKey(prediction.input_id, prediction.scope_key, prediction.resolvable_at)
        group = groups.get(key)
        if group is None:
            groups[key] = [prediction]
        else:
            group.append(prediction)
    return groups


def read_records(session: Session, prediction_ids: Collection[str]) -> dict[str, PredictionRecord]:
    """Whole predictions by id, as a resolver of ground truth is given them."""
    if not prediction_ids:
        return {}
    rows = session.connection().execute(_RECORDS, {"ids": list(prediction_ids)})
    return {
        row.id: PredictionRecord(
            id=row.id,
            input_id=row.input_id,
            model_id=row.model_id,
            prediction_config_id=row.prediction_config_id,
            scope_key=row.scope_key,
            scope=row.scope_jsonb if isinstance(row.scope_jsonb, dict) else {},
            status=PredictionStatus(row.status),
            exec_time_ms=row.exec_time_ms,
            inference_output=row.inference_output_jsonb or {},
            meta=row.meta_jsonb or {},
            performed_at=row.performed_at,
            resolvable_at=row.resolvable_at,
        )
        for row in rows
    }
