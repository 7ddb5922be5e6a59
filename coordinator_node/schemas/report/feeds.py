"""Feeds and their records."""

from __future__ import annotations

from pydantic import BaseModel, Field

from coordinator_node.schemas.report.wire import JsonObject, UtcTime


class FeedSummary(BaseModel):
    """What is stored of one feed, and how far it has come."""

    source: str = Field(description="Where it comes from.", examples=["pyth"])
    subject: str = Field(description="What it is about.", examples=["BTC"])
    kind: str = Field(description="tick, candle, depth or funding.", examples=["tick"])
    granularity: str = Field(description="The time from one record to the next.", examples=["1s"])
    record_count: int = Field(
        description="Exact up to the feed's part of 100,000, and always up to 1,000; beyond, extrapolated from the"
        " spacing of as many newest records.",
        examples=[86400],
    )
    oldest_ts: UtcTime | None = Field(description="The first record's time; null where there is none.")
    newest_ts: UtcTime | None = Field(description="The last record's time; null where there is none.")
    watermark_ts: UtcTime | None = Field(description="All records up to here are stored; null before the first.")
    watermark_updated_at: UtcTime | None = Field(description="When the watermark was last moved.")


class FeedRecordEntry(BaseModel):
    """One stored record."""

    source: str = Field(description="Where it comes from.", examples=["pyth"])
    subject: str = Field(description="What it is about.", examples=["BTC"])
    kind: str = Field(description="tick, candle, depth or funding.", examples=["tick"])
    granularity: str = Field(description="The time from one record to the next.", examples=["1s"])
    ts_event: UtcTime = Field(description="The venue's time; a candle's is its open time.")
    ts_ingested: UtcTime = Field(description="When it was stored.")
    values: JsonObject = Field(
        description="What the feed says then: a tick's price, a candle's open, high, low, close and volume.",
        examples=[{"price": 64000.5}],
    )
    meta: JsonObject = Field(description="What else its source sent.", examples=[{}])
