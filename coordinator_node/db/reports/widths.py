"""How wide the buckets of a chart are."""

from __future__ import annotations

import math
from datetime import timedelta

from coordinator_node.db.series.spans import LEVELS

MOST_ROWS = 5000
"""The most rows of one answer."""

MOST_POINTS = 500
"""The most points of one series that are shown one by one."""

MOST_POINTS_READ = 50_000
"""Where more are asked for, buckets are at least as wide as the narrowest ones that are kept."""

_DAY = 86400
# Widths of buckets that a person can read off a chart, in seconds; whole days beyond.
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, _DAY)


def chosen_width(span: timedelta, series: int, points: int) -> timedelta:
    """The width of the buckets for so many points in so many series over a span."""
    width = bucket_width(span, series)
    return max(width, timedelta(seconds=LEVELS[0])) if points > MOST_POINTS_READ else width


def bucket_width(span: timedelta, series: int) -> timedelta:
    """The width of buckets, aligned to the epoch, that gives `series` series over `span` at most MOST_ROWS rows.

    No series gets more than MOST_POINTS. With more than MOST_ROWS series no width would do: the whole span is one.
    """
    points = max(1, min(MOST_POINTS, MOST_ROWS // series))
    # Aligned buckets may begin before the span does, so it meets one more than it is widths long.
    least = span.total_seconds() / max(1, points - 1)
    width = next((width for width in _WIDTHS if width >= least), math.ceil(least / _DAY) * _DAY)
    return timedelta(seconds=width)
