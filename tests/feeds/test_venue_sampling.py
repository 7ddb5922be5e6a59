"""Sampling, and the small parts that the venues' sources share, against plain transcriptions of what they should do."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_market import utc

from coordinator_node.feeds import FeedDataRecord
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.options import read_options, seconds_option
from coordinator_node.feeds.venue.answers import date_ms, retry_after_seconds
from coordinator_node.feeds.venue.fields import UnreadableError, entry, integer, item, milliseconds, number
from coordinator_node.feeds.venue.sampled_history import Pages, sampled_history
from coordinator_node.feeds.venue.sampling import Bar, IntervalSampler, Observation, Span
from coordinator_node.feeds.venue.token_bucket import TokenBucket

SIZE = 1000


def seen(time_ms: int, order: int, price: int = 1, follows: int | None = None) -> Observation:
    return Observation(time_ms, order, Decimal(price), Decimal(order % 3), follows)


# Times that never go back, as venues give them; orders that follow each other.
MARKETS = st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 50)), min_size=1, max_size=40).map(
    lambda steps: [
        seen(sum(pause for pause, _ in steps[: number + 1]), number, price, number - 1)
        for number, (_, price) in enumerate(steps)
    ]
)


def naive(observations: list[Observation]) -> list[Bar]:
    """Each interval's observations, looked up one interval at a time."""
    starts = sorted({each.time_ms // SIZE * SIZE for each in observations})
    bars = []
    for start in starts:
        inside = [each for each in observations if start <= each.time_ms < start + SIZE]
        prices = [each.price for each in inside]
        volume = sum((each.volume for each in inside), Decimal(0))
        bars.append(Bar(start, prices[0], max(prices), min(prices), volume, inside[-1]))
    return bars


def spans_of(sampler: IntervalSampler, observations: list[Observation]) -> list[Span]:
    return [span for each in observations if (span := sampler.add(each)) is not None]


@given(MARKETS)
def test_a_whole_stream_gives_every_interval_but_the_first_and_the_last(market: list[Observation]) -> None:
    """The first is not whole, because nobody knows what came before; the last may still run."""
    spans = spans_of(IntervalSampler(SIZE, market[0].time_ms // SIZE * SIZE), market)
    bars = naive(market)
    assert [span.bar for span in spans] == bars[:-1]
    assert [span.whole for span in spans] == [False, *[True] * (len(spans) - 1)][: len(spans)]
    assert all(one.end_ms == other.start_ms for one, other in pairwise(spans))


@given(MARKETS, st.sets(st.integers(0, 39)), st.randoms(use_true_random=False))
def test_what_counts_as_whole_is_whole(market: list[Observation], lost: set[int], chance: Any) -> None:
    """Whatever is lost, sent twice or out of order: no interval is called whole that is not, and none is left out."""
    arrived = [each for number, each in enumerate(market) if number not in lost]
    shuffled = [each for each in arrived for _ in range(chance.choice([1, 1, 2]))]
    for position in range(len(shuffled) - 1):
        if chance.random() < 0.2:
            shuffled[position : position + 2] = shuffled[position : position + 2][::-1]
    sampler = IntervalSampler(SIZE, 0)
    spans = spans_of(sampler, shuffled)
    bars = {bar.start_ms: bar for bar in naive(market)}
    covered = [start for span in spans for start in range(span.start_ms, span.end_ms, SIZE)]
    assert covered == list(range(0, sampler.start_ms, SIZE))
    for span in spans:
        inside = [bars[start] for start in range(span.start_ms, span.end_ms, SIZE) if start in bars]
        assert not span.whole or inside == ([span.bar] if span.bar else [])


def test_after_the_history_has_answered_only_what_is_later_counts() -> None:
    sampler = IntervalSampler(SIZE, 0)
    assert spans_of(sampler, [seen(100, 1), seen(1100, 2, follows=1)]) == [
        Span(0, 1000, naive([seen(100, 1)])[0], False)
    ]
    sampler.skip_to(3000)
    sampler.skip_to(2000)
    assert sampler.start_ms == 3000
    assert sampler.add(seen(2900, 3, follows=2)) is None
    late, early = seen(3100, 4, follows=3), seen(4000, 5, follows=4)
    assert spans_of(sampler, [late, early]) == [Span(3000, 4000, naive([late])[0], True)]
    assert sampler.cut() == naive([early])[0]
    assert sampler.cut() is None
    assert sampler.start_ms == 5000


@given(
    MARKETS,
    st.integers(0, 60_000),
    st.integers(0, 60_000),
    st.integers(1, 50),
    st.integers(1, 9),
    st.integers(0, 60_000),
)
def test_a_history_is_what_is_over_within_its_bounds(
    market: list[Observation], start: int, end: int, limit: int, page: int, settled: int
) -> None:
    async def pages() -> Pages:
        first = [each for each in market if each.time_ms >= start // SIZE * SIZE]
        for at in range(0, len(first), page):
            yield first[at : at + page]

    def record(bar: Bar) -> FeedDataRecord:
        return FeedDataRecord("s", "A", "tick", "1s", utc(bar.last.time_ms), {"price": float(bar.close)})

    found = asyncio.run(
        sampled_history(
            pages(), size_ms=SIZE, start_ms=start, end_ms=end, settled_ms=settled, limit=limit, record=record
        )
    )
    newest = max(each.time_ms for each in market)
    over = [
        record(bar)
        for bar in naive(market)
        if bar.start_ms + SIZE <= max(newest // SIZE * SIZE, settled) and start <= bar.last.time_ms < end
    ]
    assert found.records == over[:limit]
    known = [each for each in over if each.ts_event < utc(found.complete_until_ms)]
    assert found.records == known
    assert found.complete_until_ms % SIZE == 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0, 3), max_size=80))
def test_a_bucket_never_lets_more_through_than_it_may(pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(burst=5, per_second=2.5, clock=clock)
    used = []
    for pause in pauses:
        clock.now += pause
        clock.now += bucket.reserve()
        used.append(clock.now)
    for start in used:
        assert len([at for at in used if start <= at < start + 10]) <= 31
        assert len([at for at in used if start <= at < start + 9.9]) <= 30


def test_a_bucket_says_how_long_to_wait() -> None:
    clock = Clock()
    bucket = TokenBucket(burst=2, per_second=0.5, clock=clock)
    assert [bucket.reserve() for _ in range(4)] == [0.0, 0.0, 2.0, 4.0]
    clock.now = 100
    assert [bucket.reserve() for _ in range(3)] == [0.0, 0.0, 2.0]
    assert bucket.seconds_for(12) == 20.0
    assert bucket.seconds_for(1) == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": " 12 "}, 12.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "Wed, 01 May 2024 12:01:00 GMT", "Date": "Wed, 01 May 2024 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "Wed, 01 May 2024 12:00:00 GMT", "Date": "Wed, 01 May 2024 12:00:30 GMT"}, 0.0),
        ({"Retry-After": "Wed, 01 May 2024 12:01:00 GMT"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "१"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_both_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


def test_a_date_without_a_zone_or_without_sense_is_none() -> None:
    assert date_ms({"Date": "Wed, 01 May 2024 12:00:30 GMT"}) == 1_714_564_830_000
    assert [date_ms({"Date": text}) for text in ("Wed, 01 May 2024 12:00:30 -0000", "today", "")] == [None] * 3


@pytest.mark.parametrize("value", ["x", "", "NaN", "Infinity", float("inf"), None, True, [1], {}, "1_000_000x"])
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    for read in (number, integer, milliseconds):
        with pytest.raises(UnreadableError, match=r"the price is .*expected"):
            read(value, "the price")


def test_numbers_are_exact_and_bounded() -> None:
    assert number("0.10000000000000000001", "price") == Decimal("0.10000000000000000001")
    assert number(0.1, "price") == Decimal("0.1")
    assert integer("9223372036854775807", "id") == 2**63 - 1
    for value in (1.5, "1e30", -(2**63)):
        with pytest.raises(UnreadableError, match="expected a whole number"):
            integer(value, "id")
    for value in (-1, 1_714_564_800_000_000):
        with pytest.raises(UnreadableError, match="expected epoch milliseconds"):
            milliseconds(value, "time")
    assert (item([1, 2], 1, "b"), entry({"a": 3}, "a")) == (2, 3)
    for row in ([1], "12", None, {"0": 1}):
        with pytest.raises(UnreadableError, match="the row has no b"):
            item(row, 1, "b")
    for row in ([], "a", None, {}):
        with pytest.raises(UnreadableError, match="the object has no 'a'"):
            entry(row, "a")


def test_options_of_a_family_are_known_by_their_beginning() -> None:
    read = read_options("mine", {"Symbol_BTC": "xbt", "symbol_eth": " "}, {"quote"}, ["symbol_"])
    assert read == {"symbol_btc": "xbt"}
    for name in ("symbol_", "symbols_BTC", "quotes"):
        with pytest.raises(PermanentFeedError, match=rf"no option FEED_OPT_{name}; .*quote, FEED_OPT_symbol_<SUBJECT>"):
            read_options("mine", {name: "x"}, {"quote"}, ["symbol_"])
    with pytest.raises(PermanentFeedError, match="FEED_OPT_symbol_btc is set twice"):
        read_options("mine", {"symbol_BTC": "x", "symbol_btc": "x"}, (), ["symbol_"])


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "often"])
def test_a_duration_is_above_nought(text: str) -> None:
    assert seconds_option("poll_seconds", "2.5") == 2.5
    with pytest.raises(PermanentFeedError, match=r"FEED_OPT_poll_seconds is .*seconds above 0"):
        seconds_option("poll_seconds", text)
