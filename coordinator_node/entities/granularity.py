"""Granularities of feeds: the spacing of records, as text and in seconds."""

from __future__ import annotations

GRANULARITY_SECONDS: dict[str, int] = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86400}


def granularity_seconds(granularity: str) -> int:
    """Seconds between two records of a granularity.

    Raises:
        ValueError: a granularity that no feed here has; the message lists those there are.
    """
    try:
        return GRANULARITY_SECONDS[granularity]
    except KeyError:
        known = ", ".join(GRANULARITY_SECONDS)
        raise ValueError(f"unknown granularity {granularity!r}: use one of {known}") from None
