"""Scores that no snapshot counts yet, and the step that makes them counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

_READ = text(
    """
    SELECT scores.id, prediction.id AS prediction_id, prediction.model_id, prediction.scope_key, scores.result_jsonb,
           COALESCE(scores.success, false) AS success, prediction.performed_at, prediction.resolvable_at,
           scores.scored_at
    FROM scores JOIN predictions AS prediction ON prediction.id = scores.prediction_id
    WHERE scores.snapshot_state = 'PENDING'
    ORDER BY scores.scored_at
    LIMIT :limit
    """
)
_COUNT = text(
    """
    UPDATE scores SET snapshot_state = 'COUNTED', snapshot_id = counted.snapshot_id
    FROM unnest(CAST(:ids AS text[]), CAST(:snapshots AS text[])) AS counted(id, snapshot_id)
    WHERE scores.id = counted.id AND scores.snapshot_state = 'PENDING'
    """
)


@dataclass(frozen=True)
class UncountedScore:
    """A score with what a snapshot needs of its prediction."""

    id: str
    prediction_id: str
    model_id: str
    scope_key: str
    result: dict[str, Any]
    success: bool
    performed_at: datetime
    resolvable_at: datetime
    scored_at: datetime


def read_uncounted(session: Session, limit: int) -> list[UncountedScore]:
    """The scores that no snapshot counts, at most `limit`, those scored first.

    They come in the order of resolvable_at, then of the prediction's id, which is also that of every sum made of them.
    """
    rows = session.connection().execute(_READ, {"limit": limit}).all()
    scores = [
        UncountedScore(
            id=row.id,
            prediction_id=row.prediction_id,
            model_id=row.model_id,
            scope_key=row.scope_key,
            result=row.result_jsonb if isinstance(row.result_jsonb, dict) else {},
            success=row.success,
            performed_at=row.performed_at,
            resolvable_at=row.resolvable_at,
            scored_at=row.scored_at,
        )
        for row in rows
    ]
    return sorted(scores, key=lambda score: (score.resolvable_at, score.prediction_id))


def mark_counted(session: Session, snapshot_of: Mapping[str, str]) -> None:
    """Make scores counted: {score id: snapshot id}.

    Raises:
        RuntimeError: one of them was counted by someone else; the transaction must not commit.
    """
    values = {"ids": list(snapshot_of), "snapshots": list(snapshot_of.values())}
    counted = session.connection().execute(_COUNT, values).rowcount
    if counted != len(snapshot_of):
        raise RuntimeError(f"{len(snapshot_of)} scores were to be counted and only {counted} were still uncounted")
