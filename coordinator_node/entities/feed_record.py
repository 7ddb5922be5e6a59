"""What a feed brought: records, and how far each feed has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator_node.entities.times import utc_now


@dataclass
class FeedRecord:
    """One observation of one subject.

    `ts_event` is the venue's time (a candle's is its open time), `ts_ingested` ours. `values` holds `price` for a
    tick, `open, high, low, close, volume` for a candle.
    """

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: datetime
    values: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)
    ts_ingested: datetime = field(default_factory=utc_now)


@dataclass
class FeedIngestionState:
    """The watermark of one feed: everything up to `last_event_ts` is stored. None before the first record."""

    source: str
    subject: str
    kind: str
    granularity: str
    last_event_ts: datetime | None
    meta: dict[str, Any] = field(default_factory=dict)
    updated_at: datetime = field(default_factory=utc_now)
