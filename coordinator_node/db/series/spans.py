"""Spans of time, and how one is covered by buckets of several widths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

LEVELS = (300, 3600, 86400)
"""The widths of the buckets that are kept, in seconds; each divides the next."""


class Span(NamedTuple):
    """A half-open stretch of time. Which of its ends belongs to it is the table's matter: see `bounded`."""

    begin: datetime
    end: datetime


class Cover(NamedTuple):
    """A stretch of time put together: kept buckets as (width in seconds, span), and the spans of single rows."""

    kept: list[tuple[int, Span]]
    rows: list[Span]


def floor(moment: datetime, width: int) -> datetime:
    """The last bound of buckets of `width` seconds at or before a moment."""
    return EPOCH + (moment - EPOCH) // timedelta(seconds=width) * timedelta(seconds=width)


def ceiling(moment: datetime, width: int) -> datetime:
    """The first bound of buckets of `width` seconds at or after a moment."""
    down = floor(moment, width)
    return down if down == moment else down + timedelta(seconds=width)


def cover(span: Span, cuts: Iterable[datetime], kept: Span | None, coarsest: int) -> Cover:
    """Put a span together of the widest buckets that lie wholly in it, in what is kept, and between the cuts.

    Args:
        span: what to cover, without gap or overlap.
        cuts: moments that no bucket may reach across.
        kept: where buckets are kept; None where nowhere.
        coarsest: the widest width that may be used, one of LEVELS; 0 for single rows only.
    """
    bounds = {span.begin, span.end, *cuts, *(kept or ())}
    inside = sorted(bound for bound in bounds if span.begin <= bound <= span.end)
    covered = Cover([], [])
    levels = [level for level in LEVELS if level <= coarsest]
    for begin, end in pairwise(inside):
        usable = levels if kept and kept.begin <= begin and end <= kept.end else []
        for width, part in _by_level(Span(begin, end), usable):
            if width:
                covered.kept.append((width, part))
            else:
                covered.rows.append(part)
    return Cover(covered.kept, joined(covered.rows))


def mostly_kept(span: Span, kept: Span | None) -> bool:
    """Whether buckets are kept for at least nine tenths of a span."""
    if kept is None:
        return False
    inside = min(span.end, kept.end) - max(span.begin, kept.begin)
    return inside * 10 >= (span.end - span.begin) * 9


def coarsest_level(width: float) -> int:
    """The widest level that divides a width in seconds; 0 where none does."""
    return next((level for level in reversed(LEVELS) if width >= level and width % level == 0), 0)


def bounded(column: str, spans: Sequence[Span], values: dict[str, Any], *, ends_belong: bool) -> str:
    """The SQL condition that a column lies in one of the spans; its bounds are added to the statement's values.

    Args:
        column: the column as it stands in the statement.
        spans: none means that nothing does.
        values: taken up by the statement's parameters.
        ends_belong: whether a span is (begin, end], instead of [begin, end).
    """
    after, until = (">", "<=") if ends_belong else (">=", "<")
    parts = []
    for span in spans:
        names = [f"bound_{len(values) + place}" for place in range(2)]
        values |= dict(zip(names, span, strict=True))
        parts.append(f"({column} {after} :{names[0]} AND {column} {until} :{names[1]})")
    return f"({' OR '.join(parts)})" if parts else "false"


def kept_buckets(column: str, parts: Sequence[tuple[int, Span]], values: dict[str, Any], *, ends_belong: bool) -> str:
    """The SQL condition that a kept bucket is one of those of a cover."""
    widths = sorted({width for width, _ in parts})
    of_width = [
        f"(width_seconds = {width} AND "
        + bounded(column, [span for own, span in parts if own == width], values, ends_belong=ends_belong)
        + ")"
        for width in widths
    ]
    return f"({' OR '.join(of_width)})" if of_width else "false"


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same stretches in order of time, with what touches or overlaps made one."""
    whole: list[Span] = []
    for span in sorted(spans):
        if whole and whole[-1].end >= span.begin:
            whole[-1] = Span(whole[-1].begin, max(whole[-1].end, span.end))
        else:
            whole.append(span)
    return whole


def _by_level(span: Span, levels: Sequence[int]) -> Iterator[tuple[int, Span]]:
    """The span in parts, each with the width of the buckets that it is made of; 0 for single rows."""
    if span.begin >= span.end:
        return
    if not levels:
        yield 0, span
        return
    *finer, width = levels
    begin, end = ceiling(span.begin, width), floor(span.end, width)
    if begin >= end:
        yield from _by_level(span, finer)
        return
    yield from _by_level(Span(span.begin, begin), finer)
    yield width, Span(begin, end)
    yield from _by_level(Span(end, span.end), finer)
