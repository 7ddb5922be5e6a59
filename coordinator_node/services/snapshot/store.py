"""Writes one cycle's snapshots, with the scores that they count, the models' first scores, and the root over it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.db.copying import copy_rows
from coordinator_node.db.json_text import encode_json
from coordinator_node.entities.ids import new_id, new_ids
from coordinator_node.entities.prediction import SnapshotRecord
from coordinator_node.merkle.canonical import canonical_snapshot_hash
from coordinator_node.services.merkle.cycles import write_cycle
from coordinator_node.services.model_rows import lock_models
from coordinator_node.services.snapshot.counted_leaves import LeafSources
from coordinator_node.services.snapshot.summary import ModelSummary
from coordinator_node.services.snapshot.uncounted import Miss, UncountedScore, mark_counted

_COLUMNS = (
    "id",
    "model_id",
    "period_start",
    "period_end",
    "prediction_count",
    "result_summary_jsonb",
    "meta_jsonb",
    "created_at",
    "cycle_id",
    "content_hash",
)
_NEVER_SCORED = text("SELECT id FROM models WHERE id = ANY(CAST(:ids AS text[])) AND first_scored_at IS NULL")
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
    misses: Sequence[Miss],
    summaries: Sequence[ModelSummary],
    metrics: Mapping[str, Mapping[str, float | None]],
    meta: Mapping[str, Any],
    now: datetime,
) -> list[str]:
    """Store a snapshot for each summary, under one new cycle id, and make scores and misses counted by them.

    Args:
        session: what it writes with; the caller commits.
        scores: all scores of the summaries' models in this cycle.
        misses: all their failures and absences without a score.
        summaries: one a model.
        metrics: by model id, merged over the summary's own fields.
        meta: what every snapshot's meta says besides its own.
        now: becomes created_at.

    Returns:
        The ids of the snapshots.
    """
    cycle_id = new_id()
    snapshots = [
        SnapshotRecord(
            id=snapshot_id,
            model_id=summary.model_id,
            period_start=summary.period_start,
            period_end=summary.period_end,
            prediction_count=summary.prediction_count,
            result_summary={**summary.summary, **metrics.get(summary.model_id, {})},
            meta={**summary.meta, **meta},
            created_at=now,
        )
        for snapshot_id, summary in zip(new_ids(len(summaries)), summaries, strict=True)
    ]
    hashed = [(snapshot, canonical_snapshot_hash(snapshot)) for snapshot in snapshots]
    rows = (
        (
            snapshot.id,
            snapshot.model_id,
            snapshot.period_start,
            snapshot.period_end,
            snapshot.prediction_count,
            encode_json(snapshot.result_summary),
            encode_json(snapshot.meta),
            now,
            cycle_id,
            content_hash,
        )
        for snapshot, content_hash in hashed
    )
    copy_rows(session, "snapshots", _COLUMNS, rows)
    sources = LeafSources(session, scores, misses)
    # What is counted is hashed while the database marks it, which takes the database longer.
    with ThreadPoolExecutor(max_workers=1) as beside:
        hashing = beside.submit(sources.counted_by_model)
        mark_counted(session, scores, misses, {snapshot.model_id: snapshot.id for snapshot in snapshots})
        _set_first_scores(session, scores)
    write_cycle(session, cycle_id, hashed, hashing.result(), now)
    return [snapshot.id for snapshot in snapshots]


def _set_first_scores(session: Session, scores: Sequence[UncountedScore]) -> None:
    first: dict[str, datetime] = {}
    for score in scores:
        if score.success:
            scored_at = score.observation.scored_at
            first[score.model_id] = min(scored_at, first.get(score.model_id, scored_at))
    new = session.connection().execute(_NEVER_SCORED, {"ids": list(first)}).scalars().all() if first else []
    if new:
        lock_models(session, new)
        session.connection().execute(_FIRST_SCORED, {"ids": new, "ats": [first[model_id] for model_id in new]})
