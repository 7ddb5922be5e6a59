"""What passes between a source and its callers; sources written for 0.1.84 use these unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class FeedDataKind(StrEnum):
    """What a record describes. Members equal their text, so a source may give `"tick"` as it stands."""

    TICK = "tick"
    CANDLE = "candle"
    DEPTH = "depth"
    FUNDING = "funding"


@dataclass(frozen=True)
class SubjectDescriptor:
    """One subject that a source has; `display_name` is None where the source knows no name but the symbol."""

    symbol: str
    display_name: str | None
    kinds: tuple[FeedDataKind, ...]
    granularities: tuple[str, ...]
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FeedSubscription:
    """What to listen to. `fields` are the values that the caller needs, empty for all; a source may give more."""

    subjects: tuple[str, ...]
    kind: FeedDataKind
    granularity: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeedFetchRequest:
    """Which past records to give: those with start_ts <= ts_event < end_ts.

    The bounds are epoch seconds or aware datetimes. `end_ts` None means up to now; `start_ts` None leaves the
    beginning to the source; `limit` None asks for all. `fields` as in FeedSubscription.
    """

    subjects: tuple[str, ...]
    kind: FeedDataKind
    granularity: str
    start_ts: float | datetime | None = None
    end_ts: float | datetime | None = None
    limit: int | None = None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeedDataRecord:
    """One observation as a source gives it, before it is checked.

    `ts_event` is epoch seconds (int or float) or an aware datetime: a tick's own time, a candle's open time.
    `values` holds `price` (and `volume`) for a tick, `open, high, low, close, volume` for a candle.
    """

    source: str
    subject: str
    kind: FeedDataKind
    granularity: str
    ts_event: float | datetime
    values: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)


def known_delay(kind: str, spacing_seconds: float) -> timedelta:
    """How long after its ts_event a record is known: a candle when it closes, anything else at once.

    `spacing_seconds` is the time between two records on the wall clock (see `coordinator_node.feeds.base.spacing_of`).
    """
    return timedelta(seconds=spacing_seconds) if kind == FeedDataKind.CANDLE else timedelta(0)
