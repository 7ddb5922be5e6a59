"""What the facts mean: whether the API is ready, what does not work behind it, and the same as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.reports.health import Facts, FeedFact, ReplicaFact, WorkerFact
from coordinator_node.entities.granularity import GRANULARITY_SECONDS
from coordinator_node.runtime.heartbeat import ALIVE_SECONDS
from coordinator_node.schemas.report.health import Backlog, FeedHealth, Readiness, ReplicaHealth, WorkerHealth
from coordinator_node.services.tournament_predict import is_tournament

FEED_LATE_SECONDS = 60.0
"""How much older than two records' spacing a feed's watermark may be."""

BACKLOG_LATE_SECONDS = 300.0
"""How long a due prediction may wait for its score before that is said."""

REPLICA_LATE_SECONDS = 30.0
"""How far the read replica may be behind before that is said."""

OPEN = "API_KEY is not set: everybody who reaches the API may read{and_write}"


class HealthJudge:
    """Judges facts by the settings: which workers and which feeds there should be."""

    def __init__(self, settings: Settings, config: CrunchConfig, head: str) -> None:
        self._settings = settings
        self._head = head
        # A checkpoint worker is not asked for: without one the score worker makes the checkpoints.
        self._needed_roles = ("predict", "score") if is_tournament(config) else ("feed", "predict", "score")
        self._needs_feed = not is_tournament(config)

    def readiness(self, facts: Facts | None, now: datetime) -> Readiness:
        """The verdict, with every reason; `facts` is None where the database did not answer."""
        blocking = self._blocking(facts)
        reasons = [blocking] if blocking or facts is None else self._reasons(facts, now)
        status = "unready" if blocking else "degraded" if reasons else "ready"
        return Readiness.model_validate(
            {
                "status": status,
                "ready": not blocking,
                "reasons": reasons,
                "warnings": self.warnings(),
                "database": "down" if facts is None else "up",
                "replica": _replica(facts),
                "schema_revision": facts and facts.revision,
                "schema_head": self._head,
                "workers": [_worker(worker) for worker in facts.workers] if facts else [],
                "feeds": [self.feed(feed, now) for feed in facts.feeds] if facts else [],
                "backlog": _backlog(facts, now),
            }
        )

    def warnings(self) -> list[str]:
        """What works and should not be left so."""
        if self._settings.api_key.get_secret_value():
            return []
        return [OPEN.format(and_write="" if self._settings.network == "mainnet-beta" else " and write")]

    def metrics(self, facts: Facts | None, now: datetime) -> Iterator[Metric]:
        """The facts for Prometheus."""
        yield _gauge("coordinator_database_up", "Whether the database answers.", facts is not None)
        yield _gauge("coordinator_api_key_set", "Whether API_KEY is set.", not self.warnings())
        if facts is None:
            return
        yield from _replica_metrics(facts)
        current = facts.revision == self._head
        yield _gauge("coordinator_schema_current", "Whether the schema is at this version's revision.", current)
        if current:
            late = len(self._feed_reasons(facts, now)) if self._needs_feed else 0
            yield GaugeMetricFamily("coordinator_feeds_late", "Feeds of the settings that are late.", value=late)
            yield from self._stage_metrics(facts, now)
            yield _beats(facts)
            yield _watermarks(facts, now)

    def _stage_metrics(self, facts: Facts, now: datetime) -> Iterator[Metric]:
        backlog = GaugeMetricFamily(
            "coordinator_stage_backlog", "Rows that wait for a stage, at most 100,000.", labels=["stage"]
        )
        lag = GaugeMetricFamily(
            "coordinator_stage_lag_seconds", "How long the oldest of them has waited.", labels=["stage"]
        )
        for waiting in facts.waiting:
            backlog.add_metric([waiting.stage], waiting.backlog)
            lag.add_metric([waiting.stage], _age(waiting.since, now))
        overdue = self._checkpoint_overdue(facts, now)
        interval = timedelta(seconds=self._settings.checkpoint_interval_seconds)
        backlog.add_metric(["checkpoint"], overdue // interval + 1 if overdue else 0)
        lag.add_metric(["checkpoint"], overdue.total_seconds())
        if facts.leaderboard_at is not None:
            lag.add_metric(["leaderboard"], _age(facts.leaderboard_at, now))
        ages = [_age(feed.watermark_ts, now) for feed in facts.feeds if self._is_ours(feed) and feed.watermark_ts]
        if ages:
            lag.add_metric(["feed"], max(ages))
        yield backlog
        yield lag

    def _checkpoint_overdue(self, facts: Facts, now: datetime) -> timedelta:
        """How long ago the first period without a checkpoint ended; zero where it has not, or nothing has begun it."""
        begin = facts.period_begin or self._settings.checkpoint_start or facts.first_snapshot_at
        if begin is None:
            return timedelta(0)
        due = begin + timedelta(seconds=self._settings.checkpoint_interval_seconds)
        return max(now - due, timedelta(0))

    def _blocking(self, facts: Facts | None) -> str | None:
        if facts is None:
            return "the database does not answer"
        if facts.revision is None:
            return "the database has no schema: run `coordinator-node migrate`"
        if facts.revision != self._head:
            return (
                f"the schema is at revision {facts.revision} and this version needs {self._head}:"
                " run `coordinator-node migrate` of the newest version"
            )
        return self._blocking_replica(facts.replica)

    def _blocking_replica(self, replica: ReplicaFact | None) -> str | None:
        if replica is None:
            return None
        if not replica.answers:
            return "the read replica (DATABASE_READ_URL), which reports are read from, does not answer"
        if replica.revision != self._head:
            return (
                f"the read replica (DATABASE_READ_URL) is at revision {replica.revision or 'none'} and the database at"
                f" {self._head}: it lags behind, or is no replica of it"
            )
        return None

    def _reasons(self, facts: Facts, now: datetime) -> list[str]:
        alive = {worker.role for worker in facts.workers if worker.beat_age_seconds <= ALIVE_SECONDS}
        reasons = [f"no {role} worker is alive" for role in self._needed_roles if role not in alive]
        if self._needs_feed:
            reasons += self._feed_reasons(facts, now)
        if (lag := facts.replica_lag_seconds or 0.0) > REPLICA_LATE_SECONDS:
            reasons.append(f"the read replica is {lag:.0f} s behind the database, and so are reports")
        waited = _backlog(facts, now)
        if waited.oldest_due_seconds > BACKLOG_LATE_SECONDS:
            reasons.append(
                f"{waited.due_predictions} due predictions wait to be scored, the oldest for"
                f" {waited.oldest_due_seconds:.0f} s"
            )
        return reasons

    def _feed_reasons(self, facts: Facts, now: datetime) -> list[str]:
        ours = {feed.subject: self.feed(feed, now) for feed in facts.feeds if self._is_ours(feed)}
        reasons = []
        for subject in self._settings.feed_subjects:
            feed = ours.get(subject)
            named = f"the {self._settings.feed_source} feed of {subject}"
            if feed is None or feed.watermark_age_seconds is None:
                reasons.append(f"{named} has brought nothing yet")
            elif feed.late:
                reasons.append(f"{named} is {feed.watermark_age_seconds:.0f} s behind")
        return reasons

    def _is_ours(self, feed: FeedFact) -> bool:
        s = self._settings
        ours = (s.feed_source, s.feed_kind, s.feed_granularity)
        return (feed.source, feed.kind, feed.granularity) == ours and feed.subject in s.feed_subjects

    def feed(self, feed: FeedFact, now: datetime) -> FeedHealth:
        """How far a feed has come, and whether that is too little."""
        age = None if feed.watermark_ts is None else _age(feed.watermark_ts, now)
        allowed = FEED_LATE_SECONDS + 2 * GRANULARITY_SECONDS.get(feed.granularity, 0)
        late = (age is None or age > allowed) if self._is_ours(feed) else None
        return FeedHealth(
            source=feed.source,
            subject=feed.subject,
            kind=feed.kind,
            granularity=feed.granularity,
            watermark_ts=feed.watermark_ts,
            watermark_age_seconds=age,
            late=late,
        )


def _worker(worker: WorkerFact) -> WorkerHealth:
    return WorkerHealth(
        worker_id=worker.worker_id,
        role=worker.role,
        alive=worker.beat_age_seconds <= ALIVE_SECONDS,
        beat_age_seconds=round(worker.beat_age_seconds, 3),
        started_at=worker.started_at,
        last_pass_at=worker.last_pass_at,
        last_pass=worker.last_pass,
        last_error_at=worker.last_error_at,
    )


def _replica(facts: Facts | None) -> ReplicaHealth | None:
    if facts is None or facts.replica is None:
        return None
    answers = facts.replica.answers
    return ReplicaHealth(status="up" if answers else "down", lag_seconds=facts.replica_lag_seconds)


def _replica_metrics(facts: Facts) -> Iterator[Metric]:
    if facts.replica is None:
        return
    yield _gauge("coordinator_replica_up", "Whether the read replica answers.", facts.replica.answers)
    if (lag := facts.replica_lag_seconds) is not None:
        name, text = "coordinator_replica_lag_seconds", "How far the read replica is behind the database."
        yield GaugeMetricFamily(name, text, value=lag)


def _backlog(facts: Facts | None, now: datetime) -> Backlog:
    for waiting in facts.waiting if facts else ():
        if waiting.stage == "score":
            return Backlog(due_predictions=waiting.backlog, oldest_due_seconds=_age(waiting.since, now))
    return Backlog(due_predictions=0, oldest_due_seconds=0.0)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else round(max((now - since).total_seconds(), 0.0), 3)


def _gauge(name: str, text: str, value: bool) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _beats(facts: Facts) -> Metric:
    beats = GaugeMetricFamily(
        "coordinator_worker_beat_age_seconds", "How long ago a worker last beat.", labels=["role", "worker"]
    )
    for worker in facts.workers:
        beats.add_metric([worker.role, worker.worker_id], worker.beat_age_seconds)
    return beats


def _watermarks(facts: Facts, now: datetime) -> Metric:
    ages = GaugeMetricFamily(
        "coordinator_feed_watermark_age_seconds",
        "How old the newest moment is up to which a feed is stored.",
        labels=["source", "subject", "kind", "granularity"],
    )
    for feed in facts.feeds:
        if feed.watermark_ts is not None:
            ages.add_metric([feed.source, feed.subject, feed.kind, feed.granularity], _age(feed.watermark_ts, now))
    return ages
