"""What no snapshot counts yet (scores, and predictions that never got one), and the step that makes it counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import batched
from typing import Any, NamedTuple

from sqlalchemy import Row, TextClause, text
from sqlmodel import Session

from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.services.snapshot.observations import Observation
from coordinator_node.services.snapshot.observed_rows import OBSERVED_COLUMNS, TRUTH_OF_PREDICTION, observation_of

MARKED_AT_ONCE = 1000
"""Rows of one UPDATE: few enough for the database to find each by its key, however large the table is."""

_FROM_SCORES = f"""
    SELECT scores.id, prediction.id AS prediction_id, COALESCE(scores.success, false) AS success, scores.generation,
           scores.failed_reason, prediction.commitment_id, prediction.commitment_index, {OBSERVED_COLUMNS}
    FROM scores
    JOIN predictions AS prediction ON prediction.id = scores.prediction_id
    {TRUTH_OF_PREDICTION}
"""  # noqa: S608 - put together from constants of this package
_SCORES = text(f"{_FROM_SCORES} WHERE scores.snapshot_state = 'PENDING' ORDER BY scores.scored_at LIMIT :limit")
_COUNTED_SCORES = text(
    f"{_FROM_SCORES} WHERE prediction.id = ANY(CAST(:ids AS text[])) AND scores.snapshot_id = ANY(CAST(:by AS text[]))"
)
# Only rows of this version's slots: what others wrote counts as finished. One that has a score is counted by it.
_MISSES = text(
    """
    SELECT id AS prediction_id, model_id, scope_key, status, performed_at, resolvable_at
    FROM predictions
    WHERE status IN ('FAILED', 'ABSENT') AND slot_id IS NOT NULL AND snapshot_id IS NULL AND resolvable_at <= :now
      AND NOT EXISTS (SELECT 1 FROM scores WHERE scores.prediction_id = predictions.id AND scores.generation = 1)
    ORDER BY resolvable_at, id
    LIMIT :limit
    """
)
_COUNT_SCORES = text(
    """
    UPDATE scores SET snapshot_state = 'COUNTED', snapshot_id = counted.snapshot_id
    FROM unnest(CAST(:ids AS text[]), CAST(:snapshots AS text[])) AS counted(id, snapshot_id)
    WHERE scores.id = counted.id AND scores.snapshot_state = 'PENDING'
    """
)
_COUNT_MISSES = text(
    """
    UPDATE predictions SET snapshot_id = counted.snapshot_id
    FROM unnest(CAST(:ids AS text[]), CAST(:snapshots AS text[])) AS counted(id, snapshot_id)
    WHERE predictions.id = counted.id AND predictions.snapshot_id IS NULL
    """
)


class UncountedScore(NamedTuple):
    """A score with what a snapshot needs of its prediction. `generation` is None for one that others wrote.

    `commitment_id` and `commitment_index` are where the prediction was committed; None where it was not.
    """

    id: str
    prediction_id: str
    success: bool
    generation: int | None
    observation: Observation
    failed_reason: str | None = None
    commitment_id: str | None = None
    commitment_index: int | None = None

    @property
    def model_id(self) -> str:
        """Whose prediction it is."""
        return self.observation.model_id

    @property
    def scope_key(self) -> str:
        """What was predicted."""
        return self.observation.scope_key

    @property
    def resolvable_at(self) -> datetime:
        """When its outcome was known."""
        return self.observation.resolvable_at

    @property
    def performed_at(self) -> datetime:
        """When the model was asked."""
        return self.observation.performed_at


class Miss(NamedTuple):
    """A prediction that failed, or a model that was away, without any score."""

    prediction_id: str
    model_id: str
    scope_key: str
    status: PredictionStatus
    performed_at: datetime
    resolvable_at: datetime


def read_uncounted(session: Session, limit: int) -> list[UncountedScore]:
    """The scores that no snapshot counts, at most `limit`, those scored first.

    They come in the order of resolvable_at, then of the prediction's id, which is also that of every sum made of them.
    """
    return _scores(session.connection().execute(_SCORES, {"limit": limit}))


def read_counted(session: Session, prediction_ids: Sequence[str], by: Sequence[str]) -> list[UncountedScore]:
    """The scores of these predictions that the snapshots of these ids count, in the same order."""
    return _scores(session.connection().execute(_COUNTED_SCORES, {"ids": list(prediction_ids), "by": list(by)}))


def read_misses(session: Session, now: datetime, limit: int) -> list[Miss]:
    """The failed and absent predictions that no snapshot counts, at most `limit`, in order of resolvable_at.

    One counts at the moment when its outcome would have been known, so that it is in the period of its slot's others.
    """
    rows = session.connection().execute(_MISSES, {"now": now, "limit": limit})
    return [Miss._make(row)._replace(status=PredictionStatus(row.status)) for row in rows]


def mark_counted(
    session: Session, scores: Sequence[UncountedScore], misses: Sequence[Miss], snapshot_of: Mapping[str, str]
) -> None:
    """Make scores and misses counted by their model's snapshot: {model id: snapshot id}.

    Raises:
        RuntimeError: one of them was counted by someone else; the transaction must not commit.
    """
    _mark(session, _COUNT_SCORES, [(score.id, snapshot_of[score.model_id]) for score in scores])
    missed = [(score.prediction_id, snapshot_of[score.model_id]) for score in scores if not score.success]
    missed += [(miss.prediction_id, snapshot_of[miss.model_id]) for miss in misses]
    _mark(session, _COUNT_MISSES, missed)


def _scores(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[UncountedScore]:
    scores = [
        UncountedScore(row[0], row[1], row[2], row[3], observation_of(row[7:]), row[4], row[5], row[6]) for row in rows
    ]
    return sorted(scores, key=lambda score: (score.resolvable_at, score.prediction_id))


def _mark(session: Session, statement: TextClause, pairs: Sequence[tuple[str, str]]) -> None:
    for part in batched(pairs, MARKED_AT_ONCE):
        values = {"ids": [row_id for row_id, _ in part], "snapshots": [snapshot_id for _, snapshot_id in part]}
        counted = session.connection().execute(statement, values).rowcount
        if counted != len(part):
            raise RuntimeError(f"{len(part)} rows were to be counted and only {counted} of them were still uncounted")
