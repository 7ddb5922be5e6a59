"""The checkpoint stage: turns each ended period into one emission, in order, once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.dialects.postgresql import Range, insert
from sqlmodel import Session, col

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import Fence, allow_long_work, transaction
from coordinator_node.db.tables import CheckpointRow
from coordinator_node.entities.emission import check_emission, emission_of
from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.json_values import reason_of, storable
from coordinator_node.entities.prediction import CheckpointStatus
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.notify import CHECKPOINTS, notify
from coordinator_node.services.checkpoint_periods import OpenPeriod, close_boundary, open_period, store_anchor
from coordinator_node.services.merkle.checkpoints import seal_checkpoint
from coordinator_node.services.ranking import Ranking, RankingError, Standing
from coordinator_node.services.snapshot.rescored_cycles import write_rescored_cycles

LEASE_NAME = "checkpoint"

MICROSECOND = timedelta(microseconds=1)

# In this order: an answer that is no longer awaited is a prediction by then, and one that is no longer pending has its
# score, or is a miss.
_WAITING_ANSWERS = text(
    """
    SELECT count(*) FROM slot_calls AS call
    JOIN prediction_slots AS slot ON slot.id = call.slot_id
    JOIN scheduled_prediction_configs AS schedule ON schedule.id = slot.prediction_config_id
    CROSS JOIN LATERAL make_interval(
        secs => CAST(schedule.schedule_jsonb ->> 'resolve_horizon_seconds' AS float8)) AS horizon
    CROSS JOIN LATERAL jsonb_array_elements_text(call.model_ids_jsonb) AS asked(model_id)
    WHERE call.closed_at IS NULL AND slot.slot_at + horizon >= :start AND slot.slot_at + horizon < :end
      AND NOT EXISTS (
          SELECT 1 FROM predictions AS answer WHERE answer.slot_id = slot.id AND answer.model_id = asked.model_id)
    """
)
_WAITING_PREDICTIONS = text(
    """
    SELECT count(*) FROM predictions
    WHERE status = 'PENDING' AND resolvable_at >= :start AND resolvable_at < :end
    """
)
_WAITING_SCORES = text(
    """
    SELECT count(*) FROM scores JOIN predictions AS prediction ON prediction.id = scores.prediction_id
    WHERE scores.snapshot_state = 'PENDING' AND prediction.resolvable_at >= :start AND prediction.resolvable_at < :end
    """
)
# What the snapshot stage counts as a miss, which weighs in the ranking where `missing_score` is set.
_WAITING_MISSES = text(
    """
    SELECT count(*) FROM predictions
    WHERE status IN ('FAILED', 'ABSENT') AND slot_id IS NOT NULL AND snapshot_id IS NULL
      AND resolvable_at >= :start AND resolvable_at < :end
      AND NOT EXISTS (SELECT 1 FROM scores WHERE scores.prediction_id = predictions.id AND scores.generation = 1)
    """
)
_WAITING = (_WAITING_ANSWERS, _WAITING_PREDICTIONS, _WAITING_SCORES, _WAITING_MISSES)

# A late snapshot is written after its own period's checkpoint, so after this period began, give or take two clocks.
_SCORED = text(
    """
    SELECT model_id, sum(prediction_count) AS prediction_count, count(*) AS snapshot_count,
           count(*) FILTER (WHERE meta_jsonb ? 'late') AS late_count
    FROM snapshots
    WHERE prediction_count > 0 AND superseded_by IS NULL AND (
        (period_end >= :start AND period_end < :end AND (meta_jsonb ? 'late') IS NOT TRUE)
        OR (meta_jsonb ? 'late' AND created_at >= :late_from AND meta_jsonb -> 'late' ->> 'counts_in' = :late_in)
    )
    GROUP BY model_id
    """
)
_CLOCKS_DIFFER = timedelta(hours=1)


# So many missed periods are made up in one transaction.
PERIODS_AT_ONCE = 100


class EmissionError(RuntimeError):
    """`build_emission` raised or returned what must not be paid; the period stays open and is tried again."""


@dataclass(frozen=True)
class Scored:
    """What one model had scored in a period: predictions, snapshots, and how many of these came late."""

    prediction_count: int
    snapshot_count: int
    late_count: int


class CheckpointStage:
    """Makes the checkpoints of ended periods.

    Raises:
        ConfigurationError: when made, see `Ranking`.
    """

    def __init__(self, engine: Engine, config: CrunchConfig, settings: Settings) -> None:
        self._engine = engine
        self._config = config
        self._settings = settings
        self._ranking = Ranking(config, settings)
        self._grace = timedelta(seconds=settings.checkpoint_grace_seconds)

    def run_once(self, now: datetime, fence: Fence) -> PassResult:
        """Make the checkpoints of ended periods whose scores are in, in order, from the first that has none.

        Scores that are still missing are waited for, at most CHECKPOINT_GRACE_SECONDS after the period's end. A pass
        makes at most PERIODS_AT_ONCE, and stops before one whose emission fails, so that those before it stand.

        Raises:
            EmissionError: `build_emission` raised or gave what must not be paid; nothing was written.
            RankingError: LEADERBOARD_RANKER failed; nothing was written.
        """
        made = 0
        with transaction(self._engine, fence) as session:
            allow_long_work(session)
            while made < PERIODS_AT_ONCE and self._work_on_next(session, now, first=made == 0):
                made += 1
            if made:
                notify(session, CHECKPOINTS)
        return PassResult({"checkpoints": made}, again=made > 0)

    def _work_on_next(self, session: Session, now: datetime, *, first: bool) -> bool:
        period = open_period(session, self._settings)
        if period is None:
            return False
        try:
            return self._work_on(session, period, now)
        except (EmissionError, RankingError):
            if first:
                raise
            return False  # the next pass begins with it

    def _work_on(self, session: Session, period: OpenPeriod, now: datetime) -> bool:
        store_anchor(session, period, now)
        if period.end > now:
            return False
        close_boundary(session)
        missing = _missing(session, period)
        if missing and now < period.end + self._grace:
            return False
        row = self._checkpoint(session, period, missing, now)
        stored = _store(session, row)
        if stored:
            write_rescored_cycles(session, now)
            seal_checkpoint(session, row, self._config, self._settings)
        return stored

    def _checkpoint(self, session: Session, period: OpenPeriod, missing: int, now: datetime) -> dict[str, Any]:
        """The row of a period. `missing` is how many of its predictions no snapshot counts yet."""
        ranking = self._ranked_entries(session, period)
        meta: dict[str, Any] = {
            "ranking": ranking,
            "ranking_key": self._config.aggregation.ranking_key,
            "ranking_direction": self._config.aggregation.ranking_direction,
            "empty": not ranking,
            "missing_scores": missing,
        }
        if not ranking:
            meta["reason"] = "no model had a scored prediction and a ranking value in this period"
        return {
            "id": new_id(),
            "period_start": period.start,
            "period_end": period.end,
            "status": CheckpointStatus.PENDING.value,
            "entries_jsonb": [self._emission(ranking, period)],
            "meta_jsonb": meta,
            "created_at": now,
            "period": Range(period.start, period.end, bounds="[)"),
        }

    def _ranked_entries(self, session: Session, period: OpenPeriod) -> list[dict[str, Any]]:
        """The models that may be paid, in rank order: real ones that had a scored prediction in the period.

        They are ranked as of the period's last microsecond, because its end belongs to the next one.
        """
        scored = _scored_in(session, period)
        if not scored:
            return []
        standings = [
            standing
            for standing in self._ranking.standings(session, period.end - MICROSECOND)
            if standing.model_id in scored and not is_ensemble_model(standing.model_id)
        ]
        ranked = self._ranking.ranked(standings)
        return [_entry(standing, scored[standing.model_id]) for standing in ranked if standing.rank is not None]

    def _emission(self, ranking: Sequence[dict[str, Any]], period: OpenPeriod) -> dict[str, Any]:
        try:
            return checked_emission(self._config, self._settings, ranking)
        except RAISED_BY_CALLABLES as error:  # nobody is paid by what is wrong
            raise EmissionError(
                f"no checkpoint for the period {period.start.isoformat()} to {period.end.isoformat()}: build_emission"
                f" failed for {len(ranking)} ranked models: {reason_of(error)}; correct it, the period stays open"
            ) from error


def checked_emission(config: CrunchConfig, settings: Settings, ranking: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `build_emission` pays for a ranking; without models, nothing to anybody.

    Raises:
        ValueError: it must not be paid, see `check_emission`, or cannot be stored.
        Exception: whatever `build_emission` raises.
    """
    pubkey = settings.crunch_pubkey or config.crunch_pubkey
    if not ranking:
        return dict(emission_of([], pubkey))
    emission = config.build_emission(
        deepcopy(list(ranking)),  # what it changes in its own is not what is stored
        pubkey,
        settings.compute_provider_pubkey or config.compute_provider,
        settings.data_provider_pubkey or config.data_provider,
    )
    check_emission(emission, len(ranking))
    stored: dict[str, Any] = storable(dict(emission), "emission")
    return stored


def _entry(standing: Standing, scored: Scored) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "model_id": standing.model_id,
        "model_name": standing.model_name,
        "cruncher_id": standing.cruncher_id,
        "cruncher_name": standing.cruncher_name,
        "rank": standing.rank,
        "prediction_count": scored.prediction_count,
        "snapshot_count": scored.snapshot_count,
        "result_summary": {**standing.summary, **standing.windows},
    }
    return {**entry, "late_snapshot_count": scored.late_count} if scored.late_count else entry


def _missing(session: Session, period: OpenPeriod) -> int:
    """How many predictions due in the period no snapshot counts yet: not answered, not scored, or scored just now."""
    values = {"start": period.start, "end": period.end}
    return sum(int(session.connection().execute(waiting, values).scalar_one()) for waiting in _WAITING)


def _scored_in(session: Session, period: OpenPeriod) -> dict[str, Scored]:
    values = {
        "start": period.start,
        "end": period.end,
        "late_from": period.start - _CLOCKS_DIFFER,
        "late_in": period.start.isoformat(),
    }
    rows = session.connection().execute(_SCORED, values).all()
    return {row.model_id: Scored(int(row.prediction_count), row.snapshot_count, row.late_count) for row in rows}


def _store(session: Session, row: dict[str, Any]) -> bool:
    """Insert the checkpoint; False where another transaction made one of that period first."""
    statement = insert(CheckpointRow).values(row).on_conflict_do_nothing().returning(col(CheckpointRow.id))
    return session.connection().execute(statement).scalar() is not None
