"""What every source that computes its history does: each test runs for all of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from feed_cases import NOON, Case, FastClock, Recorder, SettableClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator_node.feeds import DataFeed, FeedDataRecord, FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.base import spacing_of
from coordinator_node.feeds.computed import ComputedFeed
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.listening import ListeningTask
from coordinator_node.feeds.validation import to_feed_record

MINUTE = timedelta(minutes=1)


def request_of(case: Case, **bounds: object) -> FeedFetchRequest:
    return FeedFetchRequest(subjects=case.subjects, kind=case.kind, granularity=case.granularity, **bounds)


def fetch(feed: ComputedFeed, req: FeedFetchRequest) -> list[FeedDataRecord]:
    return list(asyncio.run(feed.fetch(req)))


def subscription(case: Case) -> FeedSubscription:
    return FeedSubscription(case.subjects, case.kind, case.granularity)


def test_gives_storable_records_in_order_and_unique(case: Case) -> None:
    feed = case.make(SettableClock())
    found = fetch(feed, request_of(case, start_ts=NOON - 5 * MINUTE, end_ts=NOON))
    keys = [(record.ts_event, record.subject) for record in found]
    assert len(found) > 100
    assert keys == sorted(set(keys))
    assert {record.subject for record in found} == set(case.subjects)
    assert all(to_feed_record(record, NOON).values for record in found)


def test_the_bounds_are_start_inclusive_and_end_exclusive(case: Case) -> None:
    feed = case.make(SettableClock())
    found = fetch(feed, request_of(case, start_ts=NOON - MINUTE, end_ts=NOON))
    times = sorted({record.ts_event for record in found})
    inner = fetch(feed, request_of(case, start_ts=times[1], end_ts=times[-1]))
    assert inner == [record for record in found if times[1] <= record.ts_event < times[-1]]


def test_bounds_may_be_epoch_seconds_or_of_another_zone(case: Case) -> None:
    feed = case.make(SettableClock())
    start, end = datetime(2024, 5, 1, 11, 58, tzinfo=UTC), datetime(2024, 5, 1, 11, 59, tzinfo=UTC)
    east = timezone(timedelta(hours=2))
    expected = fetch(feed, request_of(case, start_ts=start, end_ts=end))
    assert expected
    assert fetch(feed, request_of(case, start_ts=int(start.timestamp()), end_ts=end.timestamp())) == expected
    assert fetch(feed, request_of(case, start_ts=start.astimezone(east), end_ts=end.astimezone(east))) == expected


def test_a_fetch_never_gives_what_is_not_known_yet(case: Case) -> None:
    clock = SettableClock()
    feed = case.make(clock)
    later = request_of(case, start_ts=NOON - MINUTE, end_ts=NOON + MINUTE)
    found = fetch(feed, later)
    assert all(case.known_at(feed, record) <= NOON for record in found)
    clock.now = NOON + 2 * MINUTE
    everything = fetch(feed, later)
    assert found == [record for record in everything if case.known_at(feed, record) <= NOON]
    assert len(found) < len(everything)


def test_paging_forward_equals_one_large_fetch(case: Case) -> None:
    feed = case.make(SettableClock())
    whole = fetch(feed, request_of(case, start_ts=NOON - 2 * MINUTE, end_ts=NOON))
    for subject in case.subjects:
        paged: list[FeedDataRecord] = []
        start = NOON - 2 * MINUTE
        while True:
            page = fetch(feed, FeedFetchRequest((subject,), case.kind, case.granularity, start, NOON, limit=7))
            assert len(page) <= 7
            if not page:
                break
            paged += page
            start = page[-1].ts_event + timedelta(microseconds=1)
        assert paged == [record for record in whole if record.subject == subject]


def test_a_limit_gives_the_oldest_of_the_range(case: Case) -> None:
    feed = case.make(SettableClock())
    whole = fetch(feed, request_of(case, start_ts=NOON - 10 * MINUTE, end_ts=NOON))
    assert len(whole) > 205
    assert fetch(feed, request_of(case, start_ts=NOON - 10 * MINUTE, end_ts=NOON, limit=205)) == whole[:205]


def test_without_a_start_the_newest_known_come(case: Case) -> None:
    feed = case.make(SettableClock())
    newest = fetch(feed, request_of(case, limit=20))
    recent = fetch(feed, request_of(case, start_ts=NOON - MINUTE))
    assert newest
    assert newest == recent[-len(newest) :]


def test_an_empty_range_is_empty(case: Case) -> None:
    feed = case.make(SettableClock())
    assert fetch(feed, request_of(case, start_ts=NOON, end_ts=NOON)) == []
    assert fetch(feed, request_of(case, start_ts=NOON, end_ts=NOON - MINUTE)) == []


def test_a_restart_gives_identical_records(case: Case) -> None:
    asked = request_of(case, start_ts=NOON - 3 * MINUTE, end_ts=NOON - MINUTE)
    before = fetch(case.make(SettableClock()), asked)
    assert before
    assert fetch(case.make(SettableClock(NOON + MINUTE)), asked) == before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 90_000_000) | st.integers(0, 900).map(lambda tenth: tenth * 100_000), max_size=12))
def test_any_split_of_time_gives_the_same_records(case: Case, cuts: list[int]) -> None:
    feed = case.make(SettableClock())
    begin = datetime(2024, 5, 1, 11, 59, 15, tzinfo=UTC)  # across noon, where blocks of simulated prices meet
    moments = [begin + timedelta(microseconds=cut) for cut in sorted([0, *cuts, 90_000_000])]
    for subject in case.subjects:
        what = (subject, case.kind, case.granularity)
        whole = feed.records(*what, moments[0], moments[-1])
        parts = [record for after, upto in pairwise(moments) for record in feed.records(*what, after, upto)]
        assert parts == whole
        assert all(moments[0] < case.known_at(feed, record) <= moments[-1] for record in whole)


def test_records_are_those_of_a_fetch_by_the_time_they_are_known(case: Case) -> None:
    feed = case.make(SettableClock())
    fetched = fetch(feed, request_of(case, start_ts=NOON - 3 * MINUTE, end_ts=NOON))
    for subject in case.subjects:
        known = feed.records(subject, case.kind, case.granularity, NOON - 2 * MINUTE, NOON)
        expected = [r for r in fetched if r.subject == subject and case.known_at(feed, r) > NOON - 2 * MINUTE]
        assert known == expected


def listened(case: Case, clock: FastClock, count: int) -> tuple[ComputedFeed, Recorder]:
    async def run() -> tuple[ComputedFeed, Recorder]:
        feed = case.make(clock)
        sink = Recorder(clock)
        handle = await feed.listen(subscription(case), sink)
        clock.start()
        await sink.holds(count)
        await handle.stop()
        return feed, sink

    return asyncio.run(run())


def test_listening_equals_fetching_and_nothing_comes_early(case: Case) -> None:
    feed, sink = listened(case, FastClock(40), 30)
    assert all(heard >= case.known_at(feed, record) for heard, record in zip(sink.heard_at, sink.records, strict=True))
    first, last = sink.records[0], sink.records[-1]
    known = [
        record
        for subject in case.subjects
        for record in feed.records(
            subject, case.kind, case.granularity, NOON, case.known_at(feed, last) + timedelta(minutes=1)
        )
    ]
    known.sort(key=lambda record: (record.ts_event, record.subject))
    assert case.known_at(feed, first) > NOON
    assert sink.records == known[: len(sink.records)]


def test_a_stopped_clock_brings_nothing_and_a_leap_brings_all_that_was_due(case: Case) -> None:
    async def run() -> tuple[ComputedFeed, Recorder, SettableClock]:
        clock = SettableClock()
        feed = case.make(clock)
        sink = Recorder(clock)
        handle = await feed.listen(subscription(case), sink)
        await asyncio.sleep(0.05)
        assert sink.records == []
        clock.now = NOON + 2 * MINUTE
        due = sum(len(feed.records(subject, case.kind, case.granularity, NOON, clock.now)) for subject in case.subjects)
        await sink.holds(due)
        await asyncio.sleep(0.05)
        assert len(sink.records) == due
        await handle.stop()
        return feed, sink, clock

    feed, sink, clock = asyncio.run(run())
    known = [r for s in case.subjects for r in feed.records(s, case.kind, case.granularity, NOON, clock.now)]
    assert sink.records == sorted(known, key=lambda record: (record.ts_event, record.subject))


def test_a_slow_sink_loses_nothing(case: Case) -> None:
    class SlowSink(Recorder):
        async def on_record(self, record: FeedDataRecord) -> None:
            if len(self.records) < 3:
                await asyncio.sleep(0.05)
            await super().on_record(record)

    async def run() -> tuple[ComputedFeed, SlowSink]:
        clock = FastClock(100)
        feed = case.make(clock)
        sink = SlowSink(clock)
        handle = await feed.listen(subscription(case), sink)
        clock.start()
        await sink.holds(20)
        await handle.stop()
        return feed, sink

    feed, sink = asyncio.run(run())
    known = [r for s in case.subjects for r in feed.records(s, case.kind, case.granularity, NOON, NOON + 10 * MINUTE)]
    known.sort(key=lambda record: (record.ts_event, record.subject))
    assert sink.records == known[: len(sink.records)]


def test_a_failing_sink_is_seen_by_whoever_waits_and_by_stop(case: Case) -> None:
    class BrokenSink:
        async def on_record(self, record: FeedDataRecord) -> None:
            raise ConnectionError("the database is gone")

    async def run() -> None:
        clock = FastClock(100)
        handle = await case.make(clock).listen(subscription(case), BrokenSink())
        clock.start()
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionError, match="the database is gone"):
                await handle.wait()
        with pytest.raises(ConnectionError, match="the database is gone"):
            await handle.stop()

    asyncio.run(run())


def test_stop_ends_the_listening_and_wait_returns(case: Case) -> None:
    async def run() -> None:
        clock = SettableClock()
        sink = Recorder(clock)
        handle = await case.make(clock).listen(subscription(case), sink)
        waiting = asyncio.create_task(handle.wait())
        await handle.stop()
        await handle.stop()
        await waiting
        clock.now = NOON + MINUTE
        await asyncio.sleep(0.05)
        assert sink.records == []

    asyncio.run(run())


def test_stop_finishes_the_record_in_hand(case: Case) -> None:
    async def run() -> None:
        entered, finished = asyncio.Event(), asyncio.Event()

        class OneRecord:
            async def on_record(self, record: FeedDataRecord) -> None:
                assert not finished.is_set()
                entered.set()
                await asyncio.sleep(0.05)
                finished.set()

        clock = FastClock(100)
        handle = await case.make(clock).listen(subscription(case), OneRecord())
        clock.start()
        await entered.wait()
        await handle.stop()
        assert finished.is_set()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": ()}, "FEED_SUBJECTS must name at least one"),
        ({"subjects": ("BTC", " ")}, "FEED_SUBJECTS must name at least one, none of them empty"),
        ({"granularity": "2s"}, "FEED_GRANULARITY: unknown granularity '2s': use one of 1s, 1m"),
        ({"kind": "depth"}, "set FEED_KIND="),
        ({"kind": "funding"}, "set FEED_KIND="),
    ],
)
def test_refuses_what_it_does_not_have(case: Case, changes: dict[str, object], message: str) -> None:
    feed = case.make(SettableClock())
    what = {"subjects": case.subjects, "kind": case.kind, "granularity": case.granularity} | changes
    with pytest.raises(PermanentFeedError, match=message):
        asyncio.run(feed.fetch(FeedFetchRequest(**what)))
    with pytest.raises(PermanentFeedError, match=message):
        asyncio.run(feed.listen(FeedSubscription(**what), Recorder(SettableClock())))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"limit": 0}, "the limit must be at least 1"),
        ({"start_ts": datetime(2024, 5, 1)}, "has no time zone"),  # noqa: DTZ001 - the missing zone is the case
        ({"start_ts": 1e18}, "cannot fetch with start_ts=1e"),
    ],
)
def test_refuses_bounds_that_are_none(case: Case, bounds: dict[str, object], message: str) -> None:
    with pytest.raises(PermanentFeedError, match=message):
        fetch(case.make(SettableClock()), request_of(case, **bounds))


def test_is_a_source_with_subjects_and_a_spacing(case: Case) -> None:
    feed = case.make(SettableClock())
    assert isinstance(feed, DataFeed)
    subjects = {descriptor.symbol: descriptor for descriptor in asyncio.run(feed.list_subjects())}
    assert set(case.subjects) <= set(subjects)
    for subject in case.subjects:
        assert case.kind in subjects[subject].kinds
        assert case.granularity in subjects[subject].granularities
    times = [
        record.ts_event for record in fetch(feed, FeedFetchRequest(case.subjects[:1], case.kind, case.granularity))
    ]
    smallest = min((later - earlier).total_seconds() for earlier, later in pairwise(times))
    if case.kind == "candle":
        assert smallest == pytest.approx(spacing_of(feed, case.granularity), abs=1e-6)


def test_a_handle_whose_task_is_cancelled_or_returns_says_so() -> None:
    async def run() -> None:
        async def returns(stopping: asyncio.Event) -> None:
            return None

        with pytest.raises(Exception, match="listening to x returned although nobody stopped it"):
            await ListeningTask("x", returns).wait()

        async def waits(stopping: asyncio.Event) -> None:
            await stopping.wait()

        handle = ListeningTask("x", waits)
        for task in asyncio.all_tasks():
            if task.get_name() == "listening to x":
                task.cancel()
        with pytest.raises(Exception, match="listening to x was cancelled although nobody stopped it"):
            await handle.wait()

    asyncio.run(run())
