"""What the feed worker writes: records, watermarks, history jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, one_of, text, timestamp
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import BackfillStatus
from coordinator_node.entities.times import utc_now


class FeedRecordRow(SQLModel, table=True):
    """One observation of one subject; a time is stored once."""

    __tablename__ = "feed_records"
    __table_args__ = (
        Index("uq_feed_records_event", "source", "subject", "kind", "granularity", "ts_event", unique=True),
        Index("ix_feed_records_ts_event", "ts_event"),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    source: str = Field(sa_column=text())
    subject: str = Field(sa_column=text())
    kind: str = Field(sa_column=text())
    granularity: str = Field(sa_column=text())
    ts_event: datetime = Field(sa_column=timestamp())
    ts_ingested: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    values_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())


class FeedIngestionStateRow(SQLModel, table=True):
    """A feed's watermark: all its records up to last_event_ts are stored."""

    __tablename__ = "feed_ingestion_state"
    __table_args__ = (Index("uq_feed_ingestion_scope", "source", "subject", "kind", "granularity", unique=True),)

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    source: str = Field(sa_column=text())
    subject: str = Field(sa_column=text())
    kind: str = Field(sa_column=text())
    granularity: str = Field(sa_column=text())
    last_event_ts: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    updated_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())


class BackfillJobRow(SQLModel, table=True):
    """A request for history, and how far it has come."""

    __tablename__ = "backfill_jobs"
    __table_args__ = (
        CheckConstraint(one_of("status", BackfillStatus), name="ck_backfill_jobs_status"),
        Index("ix_backfill_jobs_status", "status"),
        Index("ix_backfill_jobs_created_at", "created_at"),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    source: str = Field(sa_column=text())
    subject: str = Field(sa_column=text())
    kind: str = Field(sa_column=text())
    granularity: str = Field(sa_column=text())
    start_ts: datetime = Field(sa_column=timestamp())
    end_ts: datetime = Field(sa_column=timestamp())
    cursor_ts: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    records_written: int = 0
    pages_fetched: int = 0
    status: str = Field(default=BackfillStatus.PENDING.value, sa_column=text())
    error: str | None = Field(default=None, sa_column=text(null=True))
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    updated_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
