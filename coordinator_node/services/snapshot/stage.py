"""The snapshot stage: one leader turns new scores into snapshots, and snapshots into the leaderboard.

Every score is counted once: its snapshot, and the mark that it is counted, are one transaction. A snapshot's scores
are all due in the same checkpoint period, so that a period's snapshots are what happened in it; each period has a
cycle of its own. Scores of a period that already has its checkpoint count in the one open now, and `meta.late` of
their snapshots says so. Predictions that failed or were absent are counted likewise, by when their outcome would have
been known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import Fence, allow_long_work, transaction
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.notify import SNAPSHOTS, notify
from coordinator_node.services.checkpoint_periods import OpenPeriod, hold_boundaries, open_period
from coordinator_node.services.generations import LIVE_GENERATION, newest_generation
from coordinator_node.services.leaderboard import Leaderboard
from coordinator_node.services.merkle.commitments import chain_commitments
from coordinator_node.services.retention import Retention
from coordinator_node.services.snapshot.ensemble_weights import EnsembleWeights, strategies_need_rows
from coordinator_node.services.snapshot.fill import filled_store
from coordinator_node.services.snapshot.observations import ObservationStore
from coordinator_node.services.snapshot.rescored_cycles import write_rescored_cycles
from coordinator_node.services.snapshot.series import SeriesBuckets
from coordinator_node.services.snapshot.store import store_cycle
from coordinator_node.services.snapshot.summary import aggregator_of, summarise
from coordinator_node.services.snapshot.uncounted import Miss, UncountedScore, read_misses, read_uncounted
from coordinator_node.services.snapshot.window_metrics import needs_rows, window_metrics
from coordinator_node.services.snapshot.window_tables import Span
from coordinator_node.services.window_sums import RunningWindowSums, hours_before

LEASE_NAME = "score-leader"

SCORES_AT_ONCE = 20_000
"""How many scores, and how many misses, one pass counts at most; it bounds memory after a long pause."""

LEADERBOARD_EVERY = 10
"""After so many cycles a leaderboard is written though nothing was scored, because its windows have moved on."""

CLOCK_STEP = timedelta(minutes=1)
"""A clock that goes back by no more changes so little of a window that it is not read anew."""

MICROSECOND = timedelta(microseconds=1)


@dataclass
class _Part:
    """What is counted in one period."""

    scores: list[UncountedScore] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)

    @property
    def all(self) -> list[UncountedScore | Miss]:
        return [*self.scores, *self.misses]

    @property
    def begins(self) -> datetime:
        return min(one.resolvable_at for one in self.all)


class SnapshotStage:
    """Counts new scores and keeps the leaderboard.

    It remembers, between passes, the observations that metrics are taken over and the sums of the leaderboard's
    windows. Both are read from the database when it begins to lead, and again after a pass that failed or a rescore.

    Raises:
        ConfigurationError: when made: an unknown ranking_key, or a dotted path that cannot be imported.
    """

    def __init__(self, engine: Engine, config: CrunchConfig, settings: Settings) -> None:
        self._engine = engine
        self._config = config
        self._settings = settings
        self._aggregator = aggregator_of(config, settings)
        self._leaderboard = Leaderboard(config, settings)
        self._retention = Retention(engine, settings)
        self._series = SeriesBuckets(engine, config.aggregation.value_field)
        self._weights = EnsembleWeights(config)
        self._sums = RunningWindowSums(config.aggregation)
        self._store: ObservationStore | None = None
        self._remembered_from = datetime.min.replace(tzinfo=UTC)
        self._fence: Fence | None = None
        self._generation = LIVE_GENERATION
        self._cycles_since_leaderboard = LEADERBOARD_EVERY

    def run_once(self, now: datetime, fence: Fence) -> PassResult:
        """One cycle: count the scores there are, at most SCORES_AT_ONCE, then write a leaderboard if one is due.

        The leaderboard has a transaction of its own: should its ranking fail, the snapshots stand, and the next cycle
        tries again.
        """
        if fence != self._fence:
            # Someone else may have counted since this process last led.
            self._forget()
            self._fence = fence
        try:
            return self._run(now, fence)
        except BaseException:
            self._forget()
            raise

    def _run(self, now: datetime, fence: Fence) -> PassResult:
        self._follow_rescores()
        store = self._observations(now)
        with transaction(self._engine, fence) as session:
            allow_long_work(session)
            hold_boundaries(session)
            part = _Part(read_uncounted(session, SCORES_AT_ONCE), read_misses(session, now, SCORES_AT_ONCE))
            snapshots = self._count(session, store, part, now)
            self._series.counted(session, (one.performed_at for one in part.all), snapshots)
            more_rescored = write_rescored_cycles(session, now, SCORES_AT_ONCE)
        self._sums.written(snapshots)
        self._cycles_since_leaderboard = LEADERBOARD_EVERY if snapshots else self._cycles_since_leaderboard + 1
        leaderboards = int(self._write_leaderboard(store, now, fence))
        self._retention.run_if_due(now, fence)
        self._series.advance(now, fence)
        counts = {
            "counted": len(part.scores),
            "missed": len(part.misses),
            "snapshots": len(snapshots),
            "leaderboards": leaderboards,
        }
        return PassResult(counts, again=more_rescored or SCORES_AT_ONCE in (len(part.scores), len(part.misses)))

    def _follow_rescores(self) -> None:
        """Forget what a rescore since the last pass has replaced; a leaderboard is then due."""
        with Session(self._engine) as session:
            generation = newest_generation(session)
        if generation != self._generation:
            self._forget()
            self._generation = generation
            self._cycles_since_leaderboard = LEADERBOARD_EVERY

    def _forget(self) -> None:
        self._store = None
        self._sums.forget()
        self._weights.forget()

    def _observations(self, now: datetime) -> ObservationStore:
        """What is remembered of the window that ends now; read from the database where nothing is remembered yet."""
        keep_rows = needs_rows(self._config) or strategies_need_rows(self._config)
        begins = hours_before(now, self._config.metrics_window_hours)
        if begins + CLOCK_STEP < self._remembered_from:
            self._store = None  # the clock was ahead, and what it made forgotten is in the window again
        if self._store is None or self._store.keeps_rows != keep_rows:
            with Session(self._engine) as session:
                self._store = filled_store(session, begins, keep_rows=keep_rows)
            self._remembered_from = begins
        if begins > self._remembered_from:
            self._store.forget_before(begins)
            self._remembered_from = begins
        return self._store

    def _write_leaderboard(self, store: ObservationStore, now: datetime, fence: Fence) -> bool:
        """Whether one was due and there are models; one that was not written stays due."""
        if self._cycles_since_leaderboard < LEADERBOARD_EVERY:
            return False
        with transaction(self._engine, fence) as session:
            allow_long_work(session)
            hold_boundaries(session)
            if newest_generation(session) != self._generation:
                self._sums.forget()  # one was published during this pass; the next follows it in full
            standings = self._leaderboard.write(session, now, self._sums.as_of(session, now))
            if standings:
                self._weights.write(session, store, standings, self._span(now), now)
                notify(session, SNAPSHOTS)
        if standings:
            self._cycles_since_leaderboard = 0
        return bool(standings)

    def _span(self, end: datetime) -> Span:
        return Span(hours_before(end, self._config.metrics_window_hours), end)

    def _count(self, session: Session, store: ObservationStore, new: _Part, now: datetime) -> list[str]:
        """Write a cycle for each period that something new is due in; returns the ids of the snapshots."""
        if not new.all:
            chain_commitments(session)  # as a cycle does; nobody shall wait for them until something is scored
            return []
        period = open_period(session, self._settings) or OpenPeriod(
            # The first snapshots of all: the anchor will be where they begin.
            start=min(one.performed_at for one in new.all),
            length=timedelta(seconds=self._settings.checkpoint_interval_seconds),
            follows=False,
        )
        by_period: dict[datetime | None, _Part] = {}
        for score in new.scores:
            by_period.setdefault(period.period_of(score.resolvable_at), _Part()).scores.append(score)
        for miss in new.misses:
            by_period.setdefault(period.period_of(miss.resolvable_at), _Part()).misses.append(miss)
        earliest_first = sorted(by_period.items(), key=lambda item: item[1].begins)
        return [
            snapshot_id
            for start, part in earliest_first
            for snapshot_id in self._cycle(session, store, part, period, start, now)
        ]

    def _cycle(
        self,
        session: Session,
        store: ObservationStore,
        part: _Part,
        period: OpenPeriod,
        start: datetime | None,
        now: datetime,
    ) -> Sequence[str]:
        store.feed(score.observation for score in part.scores if score.success and score.generation == 1)
        summaries = summarise(part.scores, part.misses, self._aggregator, self._config.aggregation.value_field)
        ends = period.start if start is None else start + period.length
        span = self._span(min(now, ends - MICROSECOND))
        metrics = window_metrics(store, self._config, [summary.model_id for summary in summaries], span)
        late = start is None and period.follows
        meta: dict[str, Any] = {"late": {"counts_in": period.start.isoformat()}} if late else {}
        return store_cycle(session, part.scores, part.misses, summaries, metrics, meta, now)
