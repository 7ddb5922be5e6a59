"""Scores a closed period again from what is stored: inputs' truths, models' outputs, and the scoring function of now.

All work is staged where nobody else sees it, so that whatever ends the process leaves nothing behind; one transaction
at the end makes it the newest generation. Older scores, snapshots and leaderboards stay, and so do checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.services.generations import newest_generation
from coordinator_node.services.leaderboard import Leaderboard
from coordinator_node.services.ranking import Ranking, Standing
from coordinator_node.services.rescore.again import Counts, CycleScorer
from coordinator_node.services.rescore.period import (
    MadeCheckpoint,
    Period,
    RescoreError,
    check_closed,
    check_period,
    made_checkpoints,
)
from coordinator_node.services.rescore.publish import compared, publish
from coordinator_node.services.rescore.staging import batches, count_older, prepare, staging_connection
from coordinator_node.services.snapshot.fill import filled_store
from coordinator_node.services.snapshot.window_metrics import needs_rows
from coordinator_node.services.window_sums import hours_before

_FIRST_COUNTED = text("SELECT min(created_at) FROM replaced")

type Progress = Callable[[int, int], None]
"""Told how many predictions are done, of how many."""


@dataclass(frozen=True)
class RescoreReport:
    """What a rescore found, and wrote unless it was a dry run.

    `generation` is None for a dry run. `before` and `after` are the ranked standings at the period's last moment.
    `older` counts scored predictions that no snapshot of this version counts; they stay as they are.
    """

    generation: int | None
    counts: Counts
    older: int
    before: list[Standing]
    after: list[Standing]
    checkpoints: list[MadeCheckpoint]


def rescore(
    engine: Engine,
    config: CrunchConfig,
    settings: Settings,
    period: Period,
    now: datetime,
    *,
    dry_run: bool,
    progress: Progress = lambda done, of: None,
) -> RescoreReport:
    """Score the predictions of a closed period again that have a score, and rank the models by what came of it.

    Args:
        engine: the database; one connection of it is used throughout.
        config: with the scoring function to use.
        settings: as for the score worker.
        period: which predictions.
        now: becomes the new scores' scored_at.
        dry_run: write nothing.
        progress: called after each batch.

    Raises:
        ConfigurationError: the period is none or lies in the future; scoring keeps state; or see `Ranking`, `Scorer`.
        RescoreError: the period is not closed or holds nothing; another rescore runs. Nothing was written.
        RankingError: LEADERBOARD_RANKER failed. Nothing was written.
    """
    check_period(period, now)
    if config.stateful_scoring:
        raise ConfigurationError(
            "a scoring function that keeps state (stateful_scoring=True) cannot score a closed period again: what it"
            " remembered at the period's beginning is not stored"
        )
    ranking, leaderboard = Ranking(config, settings), Leaderboard(config, settings)
    with staging_connection(engine) as connection, Session(connection, expire_on_commit=False) as session:
        check_closed(session, period)
        generation = newest_generation(session) + 1
        sizes = prepare(session, period)
        older = count_older(session, period)
        session.commit()
        if not sizes:
            raise RescoreError(_nothing(period, older))
        counts = _stage(session, config, settings, period, generation, now, sizes, progress)
        before, after = compared(session, ranking, period)
        if not dry_run:
            check_closed(session, period)
            meta = {"scored": counts.scored, "failed": counts.failed, "differing": counts.differing}
            publish(session, leaderboard, generation, period, meta, now)
        checkpoints = made_checkpoints(session, period)
    return RescoreReport(None if dry_run else generation, counts, older, before, after, checkpoints)


def _stage(
    session: Session,
    config: CrunchConfig,
    settings: Settings,
    period: Period,
    generation: int,
    now: datetime,
    sizes: list[tuple[int, int]],
    progress: Progress,
) -> Counts:
    first_counted = session.connection().execute(_FIRST_COUNTED).scalar_one()
    begins = hours_before(first_counted, config.metrics_window_hours)
    store = filled_store(session, begins, period.start, keep_rows=needs_rows(config))
    session.commit()
    scorer = CycleScorer(config, settings, period, generation, now, store)
    predictions = dict(sizes)
    done, total = 0, sum(predictions.values())
    progress(done, total)
    for first, last in batches(sizes):
        scorer.work_on(session, first, last)
        done += sum(predictions.get(cycle, 0) for cycle in range(first, last + 1))
        progress(done, total)
    for table in ("new_snapshots", "new_scores"):
        session.connection().execute(text(f"ANALYZE {table}"))
    session.commit()
    return scorer.counts


def _nothing(period: Period, older: int) -> str:
    if older:
        return (
            f"{older} predictions of {period} have a score, and none of them is in a snapshot of this version:"
            " what was scored before an upgrade has no stored truth and cannot be scored again"
        )
    return f"no prediction of {period} has a score; --from and --to are compared with predictions' resolvable_at"
