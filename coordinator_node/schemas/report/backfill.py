"""Backfill jobs and the files that they write."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from coordinator_node.entities.file_names import SAFE_NAME_PATTERN
from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.entities.prediction import BackfillStatus
from coordinator_node.entities.times import as_utc
from coordinator_node.schemas.report.wire import UtcTime

_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _granularity(value: str) -> str:
    granularity_seconds(value)
    return value


def _moment(value: datetime) -> datetime:
    try:
        moment = as_utc(value)
    except OverflowError:
        moment = _LATEST
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError(f"must be from {_EARLIEST:%Y-%m-%d} to before {_LATEST:%Y-%m-%d}")
    return moment


FeedPart = Annotated[str, StringConstraints(pattern=SAFE_NAME_PATTERN)]
Moment = Annotated[datetime, AfterValidator(_moment)]


class BackfillOrder(BaseModel):
    """Which history to fetch: the records with start <= time < end; naive times are UTC."""

    source: FeedPart = Field(examples=["binance"])
    subject: FeedPart = Field(examples=["BTC"])
    kind: Annotated[str, StringConstraints(pattern="^(tick|candle|depth|funding)$")] = Field(examples=["candle"])
    granularity: Annotated[str, AfterValidator(_granularity)] = Field(examples=["1m"])
    start: Moment = Field(examples=["2026-01-01T00:00:00Z"])
    end: Moment = Field(description="The first moment after it.", examples=["2026-01-08T00:00:00Z"])


class BackfillJob(BaseModel):
    """A job and how far it has come."""

    id: str = Field(examples=["01a2014c5f59c0bd07e73e443e314d57"])
    source: str = Field(examples=["binance"])
    subject: str = Field(examples=["BTC"])
    kind: str = Field(examples=["candle"])
    granularity: str = Field(examples=["1m"])
    start_ts: UtcTime
    end_ts: UtcTime = Field(description="The first moment after what is fetched.")
    cursor_ts: UtcTime | None = Field(description="All before it is stored; null before the first page.")
    records_written: int = Field(examples=[10080])
    pages_fetched: int = Field(description="Requests to the source that were answered.", examples=[11])
    status: BackfillStatus
    error: str | None = Field(description="Why it failed.")
    progress_pct: float = Field(
        ge=0, le=100, description="The share of the time range that is stored.", examples=[50.0]
    )
    created_at: UtcTime
    updated_at: UtcTime


class BackfillFile(BaseModel):
    """One day's Parquet file, at /data/backfill/{path}."""

    path: str = Field(examples=["binance/BTC/candle/1m/2026-01-01.parquet"])
    date: date
    records: int | None = Field(description="Null where the file cannot be read.")
    size_bytes: int = Field(examples=[48213])
