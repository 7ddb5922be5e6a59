"""Puts what a rescore wrote into the Merkle log: a cycle of its own for each cycle that was counted again.

A rescore is published without it, because the live stage waits meanwhile. The leader adds it in its next passes, and
a checkpoint adds whatever is still left before it is sealed, so that its log covers all that it ranks by.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.prediction import PredictionStatus, SnapshotRecord
from coordinator_node.merkle.canonical import canonical_snapshot_hash
from coordinator_node.services.merkle.cycles import write_cycle
from coordinator_node.services.snapshot.counted_leaves import LeafSources
from coordinator_node.services.snapshot.uncounted import Miss, read_counted

CYCLES_AT_ONCE = 1000

# A rescore's snapshot gets its content hash with its place in the log. It has its rescore's created_at: asked for one
# by one, those of each rescore are found by that.
_LEFT = text(
    """
    SELECT left_over.cycle_id, sum(left_over.prediction_count) AS predictions
    FROM rescores CROSS JOIN LATERAL (
        SELECT cycle_id, prediction_count, period_end FROM snapshots
        WHERE created_at = rescores.created_at AND content_hash IS NULL AND origin_id IS NOT NULL OFFSET 0
    ) AS left_over
    GROUP BY left_over.cycle_id
    ORDER BY min(rescores.generation), min(left_over.period_end), left_over.cycle_id LIMIT :limit
    """
)
_SNAPSHOTS = text("SELECT * FROM snapshots WHERE cycle_id = :cycle_id ORDER BY model_id")
# A new snapshot counts what the live stage's, which the log has, counted: those without any score, too.
_PREDICTIONS = text(
    """
    SELECT jsonb_array_elements_text(prediction_ids_jsonb) FROM merkle_counted
    WHERE snapshot_id = ANY(CAST(:origins AS text[]))
    """
)
_MISSES = text(
    """
    SELECT id AS prediction_id, model_id, scope_key, status, performed_at, resolvable_at FROM predictions
    WHERE id = ANY(CAST(:ids AS text[])) AND status IN ('FAILED', 'ABSENT')
      AND NOT EXISTS (SELECT 1 FROM scores WHERE scores.prediction_id = predictions.id)
    ORDER BY resolvable_at, id
    """
)
_SET_HASHES = text(
    """
    UPDATE snapshots SET content_hash = hashed.content_hash
    FROM unnest(CAST(:ids AS text[]), CAST(:hashes AS text[])) AS hashed(id, content_hash)
    WHERE snapshots.id = hashed.id
    """
)


def write_rescored_cycles(session: Session, now: datetime, limit: int | None = None) -> bool:
    """Add the cycles of rescores that the log has not yet, in order.

    Args:
        session: holds the boundaries, and is the only one that writes cycles; the caller commits.
        now: becomes the cycles' created_at.
        limit: stop once so many predictions are added; None adds all there are.

    Returns:
        Whether there may be more.
    """
    added = 0
    while True:
        found = session.connection().execute(_LEFT, {"limit": CYCLES_AT_ONCE}).all()
        for row in found:
            if limit is not None and added >= limit:
                return True
            _write(session, row.cycle_id, now)
            added += int(row.predictions)
        if len(found) < CYCLES_AT_ONCE:
            return False


def _write(session: Session, cycle_id: str, now: datetime) -> None:
    rows = session.connection().execute(_SNAPSHOTS, {"cycle_id": cycle_id}).all()
    snapshots = [
        SnapshotRecord(
            id=row.id,
            model_id=row.model_id,
            period_start=row.period_start,
            period_end=row.period_end,
            prediction_count=row.prediction_count,
            result_summary=row.result_summary_jsonb,
            meta=row.meta_jsonb,
            created_at=row.created_at,
        )
        for row in rows
    ]
    hashed = [(snapshot, canonical_snapshot_hash(snapshot)) for snapshot in snapshots]
    hashes = {snapshot.id: content_hash for snapshot, content_hash in hashed}
    session.connection().execute(_SET_HASHES, {"ids": list(hashes), "hashes": list(hashes.values())})
    origins = {"origins": [row.origin_id for row in rows]}
    ids = session.connection().execute(_PREDICTIONS, origins).scalars().all()
    sources = LeafSources(session, read_counted(session, ids, list(hashes)), _misses(session, ids))
    write_cycle(session, cycle_id, hashed, sources.counted_by_model(), now)


def _misses(session: Session, prediction_ids: Sequence[str]) -> list[Miss]:
    rows = session.connection().execute(_MISSES, {"ids": list(prediction_ids)})
    return [Miss._make(row)._replace(status=PredictionStatus(row.status)) for row in rows]
