"""What a rescore would change, and the one transaction in which it does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.db.json_text import encode_json
from coordinator_node.db.series.mark import keep_only_after
from coordinator_node.services.checkpoint_periods import close_boundary
from coordinator_node.services.leaderboard import Leaderboard
from coordinator_node.services.ranking import Ranking, Standing
from coordinator_node.services.rescore.period import Period, RescoreError

MICROSECOND = timedelta(microseconds=1)

# For the rest of the transaction, `snapshots` are those that there will be: a temporary name goes before others.
_AS_IF_PUBLISHED = text(
    """
    CREATE TEMPORARY VIEW snapshots AS
    SELECT * FROM snapshots
    WHERE NOT EXISTS (SELECT 1 FROM replaced WHERE replaced.snapshot_id = snapshots.id)
    UNION ALL SELECT * FROM new_snapshots
    """
)
_RESCORE = text(
    """
    INSERT INTO rescores (generation, period_start, period_end, created_at, meta_jsonb)
    VALUES (:generation, :start, :end, :now, CAST(:meta AS jsonb))
    """
)
_PUBLISH = (
    text("INSERT INTO snapshots SELECT * FROM new_snapshots"),
    text("INSERT INTO scores SELECT * FROM new_scores"),
)
_SUPERSEDE = text(
    """
    UPDATE snapshots SET superseded_by = :generation FROM replaced
    WHERE snapshots.id = replaced.snapshot_id AND snapshots.superseded_by IS NULL
    """
)
_COUNT_REPLACED = text("SELECT count(*) FROM replaced")
_LAST_CHANGED = text(
    """
    SELECT greatest((SELECT max(period_end) FROM new_snapshots), (
        SELECT max(performed_at) FROM new_scores JOIN predictions ON predictions.id = new_scores.prediction_id
    ))
    """
)
_FIRST_SCORED = text(
    """
    UPDATE models SET first_scored_at = :now
    WHERE first_scored_at IS NULL AND EXISTS (
        SELECT 1 FROM new_snapshots WHERE new_snapshots.model_id = models.id AND new_snapshots.prediction_count > 0
    )
    """
)


def compared(session: Session, ranking: Ranking, period: Period) -> tuple[list[Standing], list[Standing]]:
    """How the models stood at the period's last moment, and how they stand there by the new scores; both ranked.

    The session must have nothing to commit: its transaction is rolled back.

    Raises:
        RankingError: see `Ranking.ranked`.
    """
    as_of = period.end - MICROSECOND
    before = ranking.ranked(ranking.standings(session, as_of))
    session.connection().execute(_AS_IF_PUBLISHED)
    after = ranking.ranked(ranking.standings(session, as_of))
    session.rollback()
    return before, after


def publish(
    session: Session,
    leaderboard: Leaderboard,
    generation: int,
    period: Period,
    meta: Mapping[str, Any],
    now: datetime,
) -> None:
    """Make the staged scores and snapshots the newest generation, and write a leaderboard by them; commits.

    Where rows changed, the sums that long charts are made of are kept no longer; the score leader fills them in again.
    Nobody sees any of it before it commits. Snapshots and checkpoints are written before or after it, never meanwhile.

    Raises:
        RescoreError: a snapshot was superseded meanwhile; nothing was written.
        RankingError: see `Ranking.ranked`; nothing was written.
    """
    values = {"generation": generation, "now": now, "meta": encode_json(dict(meta)), **period.bounds}
    session.connection().execute(_RESCORE, values)
    for statement in _PUBLISH:
        session.connection().execute(statement)
    # Only now, because the live stage waits from here on.
    close_boundary(session)
    superseded = session.connection().execute(_SUPERSEDE, {"generation": generation}).rowcount
    wanted = session.connection().execute(_COUNT_REPLACED).scalar_one()
    if superseded != wanted:
        raise RescoreError(f"{wanted - superseded} of {wanted} snapshots were changed meanwhile; start again")
    session.connection().execute(_FIRST_SCORED, {"now": now})
    changed = session.connection().execute(_LAST_CHANGED).scalar()
    if changed is not None:
        keep_only_after(session.connection(), changed, now)
    leaderboard.write(session, now, meta={"rescore": generation})
    session.commit()
