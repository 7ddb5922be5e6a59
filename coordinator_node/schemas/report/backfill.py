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
Day = date
"""Another name, because a field is called date."""


class BackfillOrder(BaseModel):
    """Which history to fetch: the records with start <= time < end; naive times are UTC."""

    source: FeedPart = Field(
        description="Which venue to ask: pyth, binance, or a registered one.", examples=["binance"]
    )
    subject: FeedPart = Field(description="What to fetch, as FEED_SUBJECTS spells it.", examples=["BTC"])
    kind: Annotated[str, StringConstraints(pattern="^(tick|candle|depth|funding)$")] = Field(
        description="tick, candle, depth or funding.", examples=["candle"]
    )
    granularity: Annotated[str, AfterValidator(_granularity)] = Field(
        description="The time from one record to the next: 1s, 1m, 5m, 15m, 1h or 1d.", examples=["1m"]
    )
    start: Moment = Field(description="The first moment; naive is UTC.", examples=["2026-01-01T00:00:00Z"])
    end: Moment = Field(description="The first moment after it.", examples=["2026-01-08T00:00:00Z"])


class BackfillJob(BaseModel):
    """A job and how far it has come."""

    id: str = Field(description="The job's id.", examples=["01a2014c5f59c0bd07e73e443e314d57"])
    source: str = Field(description="Which venue is asked.", examples=["binance"])
    subject: str = Field(description="What is fetched.", examples=["BTC"])
    kind: str = Field(description="tick, candle, depth or funding.", examples=["candle"])
    granularity: str = Field(description="The time from one record to the next.", examples=["1m"])
    start_ts: UtcTime = Field(description="The first moment that is fetched.")
    end_ts: UtcTime = Field(description="The first moment after what is fetched.")
    cursor_ts: UtcTime | None = Field(description="All before it is stored; null before the first page.")
    records_written: int = Field(description="How many records were stored so far.", examples=[10080])
    pages_fetched: int = Field(description="Requests to the source that were answered.", examples=[11])
    status: BackfillStatus = Field(description="pending, running, then completed or failed.")
    error: str | None = Field(description="Why it failed.")
    progress_pct: float = Field(
        ge=0, le=100, description="The share of the time range that is stored.", examples=[50.0]
    )
    created_at: UtcTime = Field(description="When it was asked for.")
    updated_at: UtcTime = Field(description="When it last came further.")


class BackfillFile(BaseModel):
    """One day's Parquet file, at /data/backfill/{path}."""

    path: str = Field(description="Below /data/backfill/.", examples=["binance/BTC/candle/1m/2026-01-01.parquet"])
    date: Day = Field(description="The day in UTC whose records it holds.")
    records: int | None = Field(description="Null where the file cannot be read.")
    size_bytes: int = Field(description="Its length in bytes.", examples=[48213])
