"""Exact arithmetic on times: whole microseconds since the Unix epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def epoch_micros(moment: datetime) -> int:
    """Whole microseconds from 1970-01-01T00:00:00Z to an aware datetime; exact, unlike a float of seconds."""
    return (moment - EPOCH) // MICROSECOND


def from_epoch_micros(micros: int) -> datetime:
    """The inverse of `epoch_micros`, in UTC."""
    return EPOCH + timedelta(microseconds=micros)
