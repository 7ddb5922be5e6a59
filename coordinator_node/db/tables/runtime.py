"""What the workers know of one another: leases, heartbeats, and small facts that outlive a process."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Integer
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, text, timestamp


class LeaseRow(SQLModel, table=True):
    """Who may do what only one may do. `epoch` grows with every change of holder and never shrinks."""

    __tablename__ = "leases"

    name: str = Field(sa_column=text(key=True))
    holder: str = Field(sa_column=text())
    epoch: int = Field(sa_column=Column(BigInteger, nullable=False))
    acquired_at: datetime = Field(sa_column=timestamp())
    expires_at: datetime = Field(sa_column=timestamp())


class WorkerHeartbeatRow(SQLModel, table=True):
    """One running worker: when it last beat, what its last pass did, and its last error.

    `metrics_jsonb` is what it counts for Prometheus, as `runtime/metrics.py: samples` gives it; NULL where it serves
    that itself.
    """

    __tablename__ = "worker_heartbeats"

    worker_id: str = Field(sa_column=text(key=True))
    role: str = Field(sa_column=text())
    host: str = Field(sa_column=text())
    pid: int = Field(sa_column=Column(Integer, nullable=False))
    started_at: datetime = Field(sa_column=timestamp())
    beat_at: datetime = Field(sa_column=timestamp())
    last_pass_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    last_pass_jsonb: dict[str, Any] | None = Field(default=None, sa_column=jsonb())
    last_error: str | None = Field(default=None, sa_column=text(null=True))
    last_error_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    metrics_jsonb: dict[str, Any] | None = Field(default=None, sa_column=jsonb())


class EngineStateRow(SQLModel, table=True):
    """A fact that must outlive the process that found it, such as where the first checkpoint period starts."""

    __tablename__ = "engine_state"

    key: str = Field(sa_column=text(key=True))
    value_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    updated_at: datetime = Field(sa_column=timestamp())
