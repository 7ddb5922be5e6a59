"""Writes one cycle's snapshots, with the scores that they count and the models' first scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, text
from sqlmodel import Session

from coordinator_node.db.tables import SnapshotRow
from coordinator_node.entities.ids import new_id
from coordinator_node.services.model_rows import lock_models
from coordinator_node.services.snapshot.summary import ModelSummary
from coordinator_node.services.snapshot.uncounted import UncountedScore, mark_counted

_FIRST_SCORED = text(
    """
    UPDATE models SET first_scored_at = scored.at
    FROM unnest(CAST(:ids AS text[]), CAST(:ats AS timestamptz[])) AS scored(id, at)
    WHERE models.id = scored.id AND models.first_scored_at IS NULL
    """
)


def store_cycle(
    session: Session,
    scores: Sequence[UncountedScore],
    summaries: Sequence[ModelSummary],
    metrics: Mapping[str, Mapping[str, float | None]],
    meta: Mapping[str, Any],
    now: datetime,
) -> None:
    """Store a snapshot for each summary, under one new cycle id, and make the scores counted by them.

    Args:
        session: what it writes with; the caller commits.
        scores: all scores of the summaries' models in this cycle.
        summaries: one a model.
        metrics: by model id, merged over the summary's own fields.
        meta: what every snapshot's meta says besides its own.
        now: becomes created_at.
    """
    cycle_id = new_id()
    snapshot_ids = {summary.model_id: new_id() for summary in summaries}
    session.connection().execute(
        insert(SnapshotRow),
        [
            {
                "id": snapshot_ids[summary.model_id],
                "model_id": summary.model_id,
                "period_start": summary.period_start,
                "period_end": summary.period_end,
                "prediction_count": summary.prediction_count,
                "result_summary_jsonb": {**summary.summary, **metrics.get(summary.model_id, {})},
                "meta_jsonb": {**summary.meta, **meta},
                "created_at": now,
                "cycle_id": cycle_id,
            }
            for summary in summaries
        ],
    )
    mark_counted(session, {score.id: snapshot_ids[score.model_id] for score in scores})
    _set_first_scores(session, scores)


def _set_first_scores(session: Session, scores: Sequence[UncountedScore]) -> None:
    first: dict[str, datetime] = {}
    for score in scores:
        if score.success:
            first[score.model_id] = min(score.scored_at, first.get(score.model_id, score.scored_at))
    lock_models(session, list(first))
    session.connection().execute(_FIRST_SCORED, {"ids": list(first), "ats": list(first.values())})
