"""Scores, for operators' own code."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import exists, func
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from coordinator_node.db.repositories.statements import committing, newest, upsert
from coordinator_node.db.repositories.values import storable
from coordinator_node.db.tables import PredictionRow, ScoreRow
from coordinator_node.entities.prediction import ScoreRecord, SnapshotState
from coordinator_node.entities.times import as_utc


class DBScoreRepository:
    """Reads and writes scores; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, record: ScoreRecord) -> None:
        """Insert a score, or update the one of that id.

        A new score waits to be counted: the next snapshot of its model holds it, and so does the leaderboard. (A row
        that plain SQL inserts counts as counted already.) One that was counted before it was updated is not counted
        again. The prediction's status stays as it is.

        Raises:
            ValueError: it holds what the database cannot, such as NaN.
        """
        with committing(self._session):
            upsert(self._session, ScoreRow, [_values(record)], only_when_new=("snapshot_state",))

    def find(
        self,
        *,
        prediction_id: str | None = None,
        model_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[ScoreRecord]:
        """Scores made from `since` to `until`, both included: the newest `limit`, in ascending time.

        Of a prediction that was scored again it is the newest generation's.
        """
        newer = aliased(ScoreRow)
        scored_again = exists().where(
            col(newer.prediction_id) == col(ScoreRow.prediction_id),
            col(newer.generation) > func.greatest(func.coalesce(col(ScoreRow.generation), 1), 1),
        )
        query = select(ScoreRow).where(~scored_again)
        if prediction_id is not None:
            query = query.where(col(ScoreRow.prediction_id) == prediction_id)
        if model_id is not None:
            predictions = select(PredictionRow.id).where(col(PredictionRow.model_id) == model_id)
            query = query.where(col(ScoreRow.prediction_id).in_(predictions))
        if since is not None:
            query = query.where(col(ScoreRow.scored_at) >= as_utc(since))
        if until is not None:
            query = query.where(col(ScoreRow.scored_at) <= as_utc(until))
        found = newest(self._session, query, col(ScoreRow.scored_at), col(ScoreRow.id), limit=limit)
        return [score_entity(row) for row in found]


def score_entity(row: ScoreRow) -> ScoreRecord:
    """The row as the public entity; a `success` that is NULL counts as true, as it is where nothing was said."""
    return ScoreRecord(
        id=row.id,
        prediction_id=row.prediction_id,
        result=row.result_jsonb or {},
        success=row.success is not False,
        failed_reason=row.failed_reason,
        scored_at=row.scored_at,
    )


def _values(record: ScoreRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "prediction_id": record.prediction_id,
        "result_jsonb": storable(f"score {record.id!r}", "result", record.result),
        "success": record.success,
        "failed_reason": record.failed_reason,
        "scored_at": as_utc(record.scored_at),
        "snapshot_state": SnapshotState.PENDING.value,
    }
