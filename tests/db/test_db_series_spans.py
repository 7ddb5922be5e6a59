"""How a span of time is put together of kept buckets and single rows."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.db.series.spans import EPOCH, LEVELS, Span, ceiling, coarsest_level, cover, floor, joined

HOUR = timedelta(hours=1)


def moments() -> st.SearchStrategy[datetime]:
    """Moments of five days, many of them on bounds."""
    return st.one_of(
        st.integers(0, 5 * 86400 * 10**6).map(lambda micros: EPOCH + timedelta(microseconds=micros)),
        st.integers(0, 5 * 288).map(lambda steps: EPOCH + timedelta(minutes=5 * steps)),
        st.integers(0, 5).map(lambda days: EPOCH + timedelta(days=days)),
    )


def spans() -> st.SearchStrategy[Span]:
    return st.tuples(moments(), moments()).map(lambda pair: Span(min(pair), max(pair)))


@given(
    span=spans(),
    cuts=st.lists(moments(), max_size=4),
    kept=st.none() | spans().map(lambda span: Span(floor(span.begin, 300), floor(span.end, 300))),
    coarsest=st.sampled_from([0, *LEVELS]),
)
def test_a_cover_is_the_span_once(span: Span, cuts: list[datetime], kept: Span | None, coarsest: int) -> None:
    found = cover(span, cuts, kept, coarsest)
    parts = [*found.rows, *(part for _, part in found.kept)]
    assert sum((part.end - part.begin for part in parts), timedelta(0)) == span.end - span.begin
    if span.begin < span.end:
        assert joined(parts) == [span]
    for width, part in found.kept:
        assert width <= coarsest
        assert floor(part.begin, width) == part.begin
        assert floor(part.end, width) == part.end
        assert kept is not None
        assert kept.begin <= part.begin
        assert part.end <= kept.end
        assert not any(part.begin < cut < part.end for cut in cuts)
    few = 2 * (12 + 24) * (len(cuts) + 3)
    assert len(found.kept) <= few


def test_what_is_kept_needs_rows_only_at_its_ragged_ends() -> None:
    begin, end = EPOCH + timedelta(seconds=7), EPOCH + timedelta(days=3, hours=5, seconds=301)
    found = cover(Span(begin, end), (), Span(EPOCH, end + HOUR), LEVELS[-1])
    assert found.rows == [Span(begin, ceiling(begin, 300)), Span(floor(end, 300), end)]
    assert sorted({width for width, _ in found.kept}) == list(LEVELS)


def test_the_widest_level_that_divides_a_width() -> None:
    assert [coarsest_level(seconds) for seconds in (0, 60, 299, 300, 900, 3600, 7200, 86400, 172800)] == [
        0, 0, 0, 300, 300, 3600, 3600, 86400, 86400,
    ]  # fmt: skip
