"""Whether the engine works, and what keeps it from working."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from coordinator_node.schemas.report.wire import JsonObject, UtcTime

READINESS_EXAMPLE: JsonObject = {
    "status": "degraded",
    "ready": True,
    "reasons": ["no score worker is alive"],
    "warnings": ["API_KEY is not set: everybody who reaches the API may read and write"],
    "database": "up",
    "replica": None,
    "schema_revision": "0012",
    "schema_head": "0012",
    "workers": [
        {
            "worker_id": "feed-0198f2c1",
            "role": "feed",
            "alive": True,
            "beat_age_seconds": 0.8,
            "started_at": "2026-01-31T11:00:00+00:00",
            "last_pass_at": "2026-01-31T12:00:00+00:00",
            "last_pass": {"records": 1},
            "last_error_at": None,
        }
    ],
    "feeds": [
        {
            "source": "simulated",
            "subject": "BTC",
            "kind": "tick",
            "granularity": "1s",
            "watermark_ts": "2026-01-31T12:00:00+00:00",
            "watermark_age_seconds": 1.2,
            "late": False,
        }
    ],
    "backlog": {"due_predictions": 12, "oldest_due_seconds": 0.4},
}


class WorkerHealth(BaseModel):
    """One worker's heartbeat."""

    worker_id: str = Field(description="One process; another after each start.")
    role: str = Field(description="feed, predict, score, checkpoint or report.")
    alive: bool = Field(description="Whether it has beaten in the last 15 s.")
    beat_age_seconds: float = Field(description="Seconds since its last heartbeat.")
    started_at: UtcTime = Field(description="When the process started.")
    last_pass_at: UtcTime | None = Field(description="When its last pass ended well; null before the first.")
    last_pass: JsonObject | None = Field(description="What the last pass that found work did: rows by kind.")
    last_error_at: UtcTime | None = Field(description="When a pass last failed; the worker's log says why.")


class FeedHealth(BaseModel):
    """How far one feed has come."""

    source: str = Field(description="Where it comes from.")
    subject: str = Field(description="What it is about.")
    kind: str = Field(description="tick, candle, depth or funding.")
    granularity: str = Field(description="The time from one record to the next.")
    watermark_ts: UtcTime | None = Field(description="All records up to here are stored; null before the first.")
    watermark_age_seconds: float | None = Field(description="Seconds since watermark_ts; null before the first.")
    late: bool | None = Field(description="Whether it is too old; null for a feed that the settings do not name.")


class ReplicaHealth(BaseModel):
    """The read replica that reports are read from."""

    status: Literal["up", "down"] = Field(description="Whether it answers.")
    lag_seconds: float | None = Field(
        description="How far it is behind the database, to about 2 s, by the workers' heartbeats; null where unknown."
    )


class Backlog(BaseModel):
    """Predictions whose outcome is due and that nobody has scored yet."""

    due_predictions: int = Field(description="Exact up to 100,000.")
    oldest_due_seconds: float = Field(description="How long the oldest of them has been due; 0 where there is none.")


class Readiness(BaseModel):
    """Whether the API can serve (`ready`), and whether all that stands behind it works (`status`)."""

    model_config = ConfigDict(json_schema_extra={"examples": [READINESS_EXAMPLE]})

    status: Literal["ready", "degraded", "unready"] = Field(
        description="unready: the API cannot serve (503). degraded: it can, but a part of the engine does not work."
    )
    ready: bool = Field(description="Whether the API can serve; false comes with 503.")
    reasons: list[str] = Field(description="What keeps the status from being ready, one sentence each.")
    warnings: list[str] = Field(description="What works and should not be left so.")
    database: Literal["up", "down"] = Field(description="Whether it answers.")
    replica: ReplicaHealth | None = Field(description="Null where DATABASE_READ_URL is not set.")
    schema_revision: str | None = Field(description="The database's; null where it has no schema, or does not answer.")
    schema_head: str = Field(description="The revision that this version needs.")
    workers: list[WorkerHealth] = Field(description="By role.")
    feeds: list[FeedHealth] = Field(description="By source, subject, kind and granularity.")
    backlog: Backlog = Field(description="What waits to be scored.")
