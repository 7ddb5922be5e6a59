"""The snapshot stage: one leader turns new scores into snapshots, and snapshots into the leaderboard.

Every score is counted once: its snapshot, and the mark that it is counted, are one transaction. A snapshot's scores
are all due in the same checkpoint period, so that a period's snapshots are what happened in it; each period has a
cycle of its own. Scores of a period that already has its checkpoint count in the one open now, and `meta.late` of
their snapshots says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import Fence, transaction
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.notify import SNAPSHOTS, notify
from coordinator_node.services.checkpoint_periods import OpenPeriod, hold_boundaries, open_period
from coordinator_node.services.leaderboard import Leaderboard
from coordinator_node.services.snapshot.metric_window import MetricWindow
from coordinator_node.services.snapshot.store import store_cycle
from coordinator_node.services.snapshot.summary import aggregator_of, summarise
from coordinator_node.services.snapshot.uncounted import UncountedScore, read_uncounted

LEASE_NAME = "score-leader"

SCORES_AT_ONCE = 20_000
"""How many scores one pass counts at most; it bounds memory after a long pause."""

LEADERBOARD_EVERY = 10
"""After so many cycles a leaderboard is written though nothing was scored, because its windows have moved on."""

MICROSECOND = timedelta(microseconds=1)


class SnapshotStage:
    """Counts new scores and keeps the leaderboard.

    Raises:
        ConfigurationError: when made: an unknown ranking_key, or a dotted path that cannot be imported.
    """

    def __init__(self, engine: Engine, config: CrunchConfig, settings: Settings) -> None:
        self._engine = engine
        self._config = config
        self._settings = settings
        self._aggregator = aggregator_of(config, settings)
        self._leaderboard = Leaderboard(config, settings)
        self._cycles_since_leaderboard = LEADERBOARD_EVERY

    def run_once(self, now: datetime, fence: Fence) -> PassResult:
        """One cycle: count the scores there are, at most SCORES_AT_ONCE, then write a leaderboard if one is due.

        The leaderboard has a transaction of its own: should its ranking fail, the snapshots stand, and the next cycle
        tries again.
        """
        with transaction(self._engine, fence) as session:
            hold_boundaries(session)
            scores = read_uncounted(session, SCORES_AT_ONCE)
            snapshots = self._count(session, scores, now)
        self._cycles_since_leaderboard = LEADERBOARD_EVERY if snapshots else self._cycles_since_leaderboard + 1
        leaderboards = int(self._write_leaderboard(now, fence))
        counts = {"counted": len(scores), "snapshots": snapshots, "leaderboards": leaderboards}
        return PassResult(counts, again=len(scores) == SCORES_AT_ONCE)

    def _write_leaderboard(self, now: datetime, fence: Fence) -> bool:
        """Whether one was due and there are models; one that was not written stays due."""
        if self._cycles_since_leaderboard < LEADERBOARD_EVERY:
            return False
        with transaction(self._engine, fence) as session:
            written = self._leaderboard.write(session, now)
            if written:
                notify(session, SNAPSHOTS)
        if written:
            self._cycles_since_leaderboard = 0
        return written

    def _count(self, session: Session, scores: Sequence[UncountedScore], now: datetime) -> int:
        """Write a cycle for each period that the scores are due in; returns the number of snapshots."""
        if not scores:
            return 0
        period = open_period(session, self._settings) or OpenPeriod(
            # The first snapshots of all: the anchor will be where they begin.
            start=min(score.performed_at for score in scores),
            length=timedelta(seconds=self._settings.checkpoint_interval_seconds),
            follows=False,
        )
        by_period: dict[datetime | None, list[UncountedScore]] = {}
        for score in scores:
            by_period.setdefault(period.period_of(score.resolvable_at), []).append(score)
        earliest_first = sorted(by_period.items(), key=lambda item: item[1][0].resolvable_at)
        return sum(self._cycle(session, due, period, start, now) for start, due in earliest_first)

    def _cycle(
        self,
        session: Session,
        scores: Sequence[UncountedScore],
        period: OpenPeriod,
        start: datetime | None,
        now: datetime,
    ) -> int:
        summaries = summarise(scores, self._aggregator, self._config.aggregation.value_field)
        ends = period.start if start is None else start + period.length
        window = MetricWindow(session, min(now, ends - MICROSECOND))
        metrics = window.metrics(self._config, [summary.model_id for summary in summaries])
        late = start is None and period.follows
        meta: dict[str, Any] = {"late": {"counts_in": period.start.isoformat()}} if late else {}
        store_cycle(session, scores, summaries, metrics, meta, now)
        return len(summaries)
