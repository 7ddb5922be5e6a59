"""Sums by time bucket, which long charts are made of; all can be made anew from predictions, scores and snapshots."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, Interval, Numeric
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, text, timestamp


def _count(*, key: bool = False) -> Column[Any]:
    return Column(Integer if key else BigInteger, primary_key=key, nullable=False, autoincrement=False)


def _interval() -> Column[Any]:
    return Column(Interval, nullable=True)


class PredictionBucketRow(SQLModel, table=True):
    """One series' predictions with begins_at <= performed_at < begins_at + width_seconds.

    A series is one model, scope_key and schedule; `prediction_config_id` is '' for predictions of no schedule. Of what
    may differ the least and the greatest value is kept, and how many have one.
    """

    __tablename__ = "prediction_buckets"

    width_seconds: int = Field(sa_column=_count(key=True))
    begins_at: datetime = Field(sa_column=Column(timestamp().type, primary_key=True))
    model_id: str = Field(sa_column=text(key=True, references="models.id"))
    scope_key: str = Field(sa_column=text(key=True))
    prediction_config_id: str = Field(sa_column=text(key=True))
    points: int = Field(sa_column=_count())
    performed_at: datetime = Field(sa_column=timestamp())
    failed: int = Field(sa_column=_count())
    value_total: float | None = Field(default=None)
    value_count: int = Field(sa_column=_count())
    horizon_least: timedelta | None = Field(default=None, sa_column=_interval())
    horizon_greatest: timedelta | None = Field(default=None, sa_column=_interval())
    reason_least: str | None = Field(default=None, sa_column=text(null=True))
    reason_greatest: str | None = Field(default=None, sa_column=text(null=True))
    reason_count: int = Field(sa_column=_count())
    scored_least: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    scored_greatest: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    scored_count: int = Field(sa_column=_count())
    scope_hash_least: int = Field(sa_column=_count())
    scope_hash_greatest: int = Field(sa_column=_count())
    sample_id: str = Field(sa_column=text())


class SnapshotBucketRow(SQLModel, table=True):
    """One model's snapshots with ends_at - width_seconds < period_end <= ends_at.

    `total` is the sum of the value_field times prediction_count, `weight` that of these counts, `missing` the failed
    and absent ones. `scopes_jsonb` has {scope_key: [total, weight, missing]}, `numbers_jsonb` for every number of the
    summaries {name: [sum of number times weight, sum of weights]}, a snapshot weighing prediction_count, at least 1.
    `latest_jsonb` is the summary of the latest snapshot that counts some prediction; NULL where none does, and in rows
    made before there was this column.
    """

    __tablename__ = "snapshot_buckets"

    width_seconds: int = Field(sa_column=_count(key=True))
    ends_at: datetime = Field(sa_column=Column(timestamp().type, primary_key=True))
    model_id: str = Field(sa_column=text(key=True, references="models.id"))
    total: Decimal | None = Field(default=None, sa_column=Column(Numeric, nullable=True))
    weight: int = Field(sa_column=_count())
    missing: int = Field(sa_column=_count())
    snapshots: int = Field(sa_column=_count())
    prediction_count: int = Field(sa_column=_count())
    period_start: datetime = Field(sa_column=timestamp())
    period_end: datetime = Field(sa_column=timestamp())
    scopes_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    numbers_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    latest_jsonb: dict[str, Any] | None = Field(default=None, sa_column=jsonb())
