"""Times: aware, in UTC, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The wall clock. Stages do not call it: their caller passes `now` in."""
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """The same instant in UTC; a naive value is read as UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def from_epoch(seconds: float) -> datetime:
    """The instant `seconds` after 1970-01-01T00:00:00Z."""
    return datetime.fromtimestamp(seconds, UTC)


def event_time(value: float | datetime) -> datetime:
    """An event's time as feeds give it (epoch seconds, or an aware datetime) as an aware datetime in UTC.

    Raises:
        ValueError: a naive datetime, because a feed that omits the zone may mean any.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"event time {value.isoformat()} has no time zone")
        return value.astimezone(UTC)
    return from_epoch(value)
