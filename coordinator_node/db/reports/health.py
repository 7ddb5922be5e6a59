"""What the database says of the engine's health: its schema, its workers, its feeds, and what waits to be done.

Every statement reads through an index, and no more than MOST_WAITING rows of what waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from coordinator_node.runtime.metrics import Samples

MOST_WAITING = 100_000
MOST_FEEDS = 1000

_HAS_REVISION = "SELECT to_regclass('alembic_version') IS NOT NULL AS found"
_REVISION = "SELECT max(version_num) AS revision FROM alembic_version"
_HAS_HEARTBEATS = "SELECT to_regclass('worker_heartbeats') IS NOT NULL AS found"
_NEWEST_BEAT = "SELECT max(beat_at) AS beat_at FROM worker_heartbeats"
_WORKERS = """
    SELECT worker_id, role, started_at, beat_at, last_pass_at, last_pass_jsonb AS last_pass, last_error_at,
           metrics_jsonb AS metrics, extract(epoch FROM clock_timestamp() - beat_at)::float8 AS beat_age_seconds
    FROM worker_heartbeats ORDER BY role, started_at, worker_id
"""
_FEEDS = """
    SELECT source, subject, kind, granularity, last_event_ts AS watermark_ts
    FROM feed_ingestion_state ORDER BY source, subject, kind, granularity LIMIT %(limit)s
"""
# Each counts the oldest MOST_WAITING of what waits, and says since when the oldest does.
_WAITING = """
    SELECT 'score' AS stage, count(*) AS backlog, min(since) AS since FROM (
        SELECT COALESCE(next_attempt_at, resolvable_at) AS since FROM predictions
        WHERE status = 'PENDING' AND COALESCE(next_attempt_at, resolvable_at) <= %(now)s
        ORDER BY COALESCE(next_attempt_at, resolvable_at) LIMIT %(most)s) due
    UNION ALL
    SELECT 'predict', count(*), min(called_at) FROM (
        SELECT called_at FROM slot_calls WHERE closed_at IS NULL LIMIT %(most)s) open_calls
    UNION ALL
    SELECT 'snapshot', count(*), min(scored_at) FROM (
        SELECT scored_at FROM scores WHERE snapshot_state = 'PENDING' ORDER BY scored_at LIMIT %(most)s) uncounted
    UNION ALL
    SELECT 'backfill', count(*), min(created_at) FROM (
        SELECT created_at FROM backfill_jobs WHERE status IN ('pending', 'running') LIMIT %(most)s) jobs
"""
# Where the first period without a checkpoint begins, as services.checkpoint_periods says.
_NEWEST = """
    SELECT leaderboard_at, period_begin,
           CASE WHEN period_begin IS NULL THEN (
               SELECT period_start FROM snapshots WHERE cycle_id IS NOT NULL ORDER BY period_end LIMIT 1
           ) END AS first_snapshot_at
    FROM (
        SELECT (SELECT max(created_at) FROM leaderboards) AS leaderboard_at,
               COALESCE(
                   (SELECT max(period_end) FROM checkpoints WHERE period IS NOT NULL),
                   (SELECT CAST(value_jsonb ->> 'start' AS timestamptz) FROM engine_state
                    WHERE key = 'checkpoint_anchor'),
                   (SELECT max(period_end) FROM checkpoints)
               ) AS period_begin
    ) AS newest
"""


@dataclass(frozen=True)
class WorkerFact:
    """One worker's heartbeat. `metrics` is empty where the worker serves its own."""

    worker_id: str
    role: str
    started_at: datetime
    beat_at: datetime
    beat_age_seconds: float
    last_pass_at: datetime | None
    last_pass: dict[str, Any] | None
    last_error_at: datetime | None
    metrics: Samples


@dataclass(frozen=True)
class FeedFact:
    """One feed, and up to when it is stored."""

    source: str
    subject: str
    kind: str
    granularity: str
    watermark_ts: datetime | None


@dataclass(frozen=True)
class Waiting:
    """What waits for a stage: how much (at most MOST_WAITING), and since when the oldest does; None where nothing."""

    stage: str
    backlog: int
    since: datetime | None


@dataclass(frozen=True)
class ReplicaFact:
    """The read replica: its schema, and the newest heartbeat that has come to it; None where it has none of either."""

    answers: bool
    revision: str | None = None
    newest_beat: datetime | None = None


@dataclass(frozen=True)
class Facts:
    """What the database says. Of a schema that is not this version's only the revision is read; None is no schema.

    `period_begin` is where the first period without a checkpoint begins, None before the checkpoint stage has settled
    it; then `first_snapshot_at` is where the oldest snapshot begins. `replica` is None where none is set.
    """

    revision: str | None
    workers: list[WorkerFact] = field(default_factory=list)
    feeds: list[FeedFact] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    leaderboard_at: datetime | None = None
    period_begin: datetime | None = None
    first_snapshot_at: datetime | None = None
    replica: ReplicaFact | None = None

    @property
    def replica_lag_seconds(self) -> float | None:
        """How far the replica is behind, by the heartbeats that both have, which are seconds apart; None: unknown."""
        newest = max((worker.beat_at for worker in self.workers), default=None)
        if newest is None or self.replica is None or self.replica.newest_beat is None:
            return None
        return max((newest - self.replica.newest_beat).total_seconds(), 0.0)


async def read_facts(connection: psycopg.AsyncConnection, head: str, now: datetime) -> Facts:
    """The facts of a database whose schema is at revision `head`, or only its own revision."""
    revision = await _revision(connection)
    if revision != head:
        return Facts(revision)
    workers = await _rows(connection, _WORKERS)
    feeds = await _rows(connection, _FEEDS, limit=MOST_FEEDS)
    waiting = await _rows(connection, _WAITING, now=now, most=MOST_WAITING)
    newest = (await _rows(connection, _NEWEST))[0]
    return Facts(
        revision,
        [WorkerFact(**{**row, "metrics": row["metrics"] or {}}) for row in workers],
        [FeedFact(**row) for row in feeds],
        [Waiting(**row) for row in waiting],
        **newest,
    )


async def read_replica(connection: psycopg.AsyncConnection) -> ReplicaFact:
    """How far a read replica has come."""
    revision = await _revision(connection)
    if revision is None or not (await _rows(connection, _HAS_HEARTBEATS))[0]["found"]:
        return ReplicaFact(True, revision)
    return ReplicaFact(True, revision, (await _rows(connection, _NEWEST_BEAT))[0]["beat_at"])


async def _revision(connection: psycopg.AsyncConnection) -> str | None:
    if not (await _rows(connection, _HAS_REVISION))[0]["found"]:
        return None
    revision: str | None = (await _rows(connection, _REVISION))[0]["revision"]
    return revision


async def _rows(connection: psycopg.AsyncConnection, statement: str, **values: Any) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchall()
