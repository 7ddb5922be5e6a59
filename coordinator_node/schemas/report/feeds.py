"""Feeds and their records."""

from __future__ import annotations

from pydantic import BaseModel, Field

from coordinator_node.schemas.report.wire import JsonObject, UtcTime


class FeedSummary(BaseModel):
    """What is stored of one feed, and how far it has come."""

    source: str
    subject: str
    kind: str
    granularity: str
    record_count: int = Field(
        description="Exact up to 100,000; beyond, extrapolated from the spacing of the newest 100,000 records."
    )
    oldest_ts: UtcTime | None
    newest_ts: UtcTime | None
    watermark_ts: UtcTime | None = Field(description="All records up to here are stored; null before the first.")
    watermark_updated_at: UtcTime | None


class FeedRecordEntry(BaseModel):
    """One stored record."""

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: UtcTime = Field(description="The venue's time; a candle's is its open time.")
    ts_ingested: UtcTime
    values: JsonObject
    meta: JsonObject
