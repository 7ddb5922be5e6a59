"""What every venue's source does, whatever the venue does: each test runs for all of them against the local venue."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_venue import NOON_MS, LocalVenue
from venue_cases import CASES, PATIENT, QUICK, Heard, VenueCase, listening
from venue_market import FEED_IDS, utc

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.times import utc_now
from coordinator_node.feeds import FeedDataRecord
from coordinator_node.feeds.base import LivelyFeedHandle, ObservableFeedHandle
from coordinator_node.feeds.errors import FeedError, PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.validation import to_feed_record
from coordinator_node.feeds.venue import listening as listening_module
from coordinator_node.services.feed_data.paging import HistoryReader

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> VenueCase:
    return CASES[request.param]


@pytest.fixture
def venue() -> Iterator[LocalVenue]:
    with LocalVenue() as made:
        yield made


def fetch(case: VenueCase, venue: LocalVenue, *subjects: str, **bounds: object) -> list[FeedDataRecord]:
    return list(asyncio.run(case.make(venue, PATIENT).fetch(case.request(*subjects, **bounds))))


def spoiled(at: int, where: Callable[[str], bool], ruin: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    """Ruins the `at`-th row that passes by where it counts, and no other."""
    seen = 0

    def spoil(path: str, row: Any) -> Any:
        nonlocal seen
        if not where(path):
            return row
        seen += 1
        return ruin(row) if seen == at else row

    return spoil


# Fetching.


def test_a_long_history_comes_whole_page_after_page(case: VenueCase, venue: LocalVenue) -> None:
    intervals = 3000 if case.kind == "candle" else 3600
    start = NOON_MS - intervals * case.size_ms * 11 // 10 // case.size_ms * case.size_ms
    found = fetch(case, venue, start_ts=utc(start), end_ts=utc(NOON_MS - 60_000))
    assert found == case.expected(venue, start, NOON_MS - 60_000)
    assert len(found) > 2000
    assert len(venue.asked) > 3
    assert all(to_feed_record(record, utc_now()).values for record in found)


def test_paging_forward_with_a_limit_equals_one_fetch(case: VenueCase, venue: LocalVenue) -> None:
    start, end = utc(NOON_MS - 400 * case.size_ms), utc(NOON_MS - 60_000)
    whole = fetch(case, venue, start_ts=start, end_ts=end)
    paged: list[FeedDataRecord] = []
    while page := fetch(case, venue, start_ts=start, end_ts=end, limit=70):
        assert len(page) <= 70
        paged += page
        start = page[-1].ts_event + MICROSECOND
    assert paged == whole
    assert len(whole) > 140


def test_the_bounds_are_start_inclusive_and_end_exclusive(case: VenueCase, venue: LocalVenue) -> None:
    whole = fetch(case, venue, start_ts=utc(NOON_MS - 300 * case.size_ms))
    first, last = whole[5].ts_event, whole[-5].ts_event
    inner = [record for record in whole if first <= record.ts_event < last]
    assert fetch(case, venue, start_ts=first, end_ts=last) == inner
    assert fetch(case, venue, start_ts=first - MICROSECOND, end_ts=last - MICROSECOND) == inner
    assert fetch(case, venue, start_ts=first + MICROSECOND, end_ts=last + MICROSECOND) == [*inner[1:], whole[-5]]
    assert fetch(case, venue, start_ts=first.timestamp(), end_ts=last.timestamp()) == inner
    assert fetch(case, venue, start_ts=last, end_ts=last) == []
    assert fetch(case, venue, start_ts=last, end_ts=first) == []


def test_what_still_runs_is_never_given(case: VenueCase, venue: LocalVenue) -> None:
    venue.now_ms += 30_300
    found = fetch(case, venue, start_ts=utc(NOON_MS - 100 * case.size_ms), end_ts=utc(NOON_MS + 10**7))
    running = venue.now_ms // case.size_ms * case.size_ms
    over = case.expected(venue, NOON_MS - 100 * case.size_ms, running)
    # What ended just now may be given or not, as long as it is not lost to a listening that begins now.
    assert found == over[: len(found)]
    certain = case.expected(venue, NOON_MS - 100 * case.size_ms, case.heard_from(venue))
    assert len(found) >= len(certain)


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
def test_up_to_now_means_the_venues_now(case: VenueCase, venue: LocalVenue, hours: int) -> None:
    venue.now_ms = round((utc_now() + timedelta(hours=hours)).timestamp()) * 1000
    start = venue.now_ms // case.size_ms * case.size_ms - 50 * case.size_ms
    found = fetch(case, venue, start_ts=utc(start))
    assert found == case.expected(venue, start, venue.now_ms // case.size_ms * case.size_ms)[: len(found)]
    assert found[-len(found) // 2 :] != []
    assert found[-1].ts_event >= utc(case.heard_from(venue) - 8 * case.size_ms)
    assert fetch(case, venue, limit=5)[-1].ts_event >= utc(case.heard_from(venue) - 8 * case.size_ms)


def test_without_a_start_the_newest_come(case: VenueCase, venue: LocalVenue) -> None:
    newest = fetch(case, venue, limit=20)
    assert 10 < len(newest) <= 20
    assert newest == fetch(case, venue, start_ts=utc(NOON_MS - 30 * case.size_ms))[-len(newest) :]


def test_several_subjects_come_by_time_then_by_name(case: VenueCase, venue: LocalVenue) -> None:
    start, end = NOON_MS - 100 * case.size_ms, NOON_MS - 60_000
    found = fetch(case, venue, "ETH", "BTC", start_ts=utc(start), end_ts=utc(end))
    for subject in ("BTC", "ETH"):
        assert [each for each in found if each.subject == subject] == case.expected(venue, start, end, subject)
    assert found == sorted(found, key=lambda each: (each.ts_event, each.subject))
    assert fetch(case, venue, "ETH", "BTC", start_ts=utc(start), end_ts=utc(end), limit=7) == found[:7]


def test_a_malformed_row_costs_only_itself(case: VenueCase, venue: LocalVenue) -> None:
    start, end = NOON_MS - 100 * case.size_ms, NOON_MS - 60_000
    whole = case.expected(venue, start, end)
    venue.spoil = spoiled(20, lambda path: case.history in path, lambda row: {"nothing": "of use"})
    found = fetch(case, venue, start_ts=utc(start), end_ts=utc(end))
    wrong = [record for record in found if record not in whole]
    lost = [record for record in whole if record not in found]
    # A trade that cannot be read may leave its interval with other trades.
    assert len(wrong) <= 1
    assert len(lost) == 1
    assert wrong == [] or case.kind == "tick"


def test_duplicate_and_disordered_rows_change_nothing(case: VenueCase, venue: LocalVenue) -> None:
    start, end = utc(NOON_MS - 60 * case.size_ms), utc(NOON_MS - 60_000)
    whole = fetch(case, venue, start_ts=start, end_ts=end)
    plain = venue._rows, venue._updates
    shuffle = random.Random(3).sample

    def disordered(request: Any, rows: Any) -> Any:
        return plain[0](request, shuffle([*rows, *rows[:5]], len(rows) + len(rows[:5])) if len(rows) < 900 else rows)

    def doubled(path: str, rows: Any) -> Any:
        return plain[1](path, [*rows, *rows])

    venue._rows, venue._updates = disordered, doubled  # type: ignore[method-assign]  # this venue is disorderly
    assert fetch(case, venue, start_ts=start, end_ts=end) == whole


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (429, {"Retry-After": "Wed, 01 May 2024 12:00:09 GMT"}, 9.0),
        (429, {}, 60.0),
        (500, {}, None),
        (502, {}, None),
        (503, {"Retry-After": "30"}, 30.0),
    ],
)
def test_a_busy_venue_is_asked_again_when_it_says(
    case: VenueCase, venue: LocalVenue, status: int, headers: dict[str, str], retry_after: float | None
) -> None:
    for body in ("", "<html>no</html>", '"text"', '{"code":-1003,"msg":"Too many requests."}'):
        venue.fail("/", status, headers=headers, body=body)
        with pytest.raises(RetryableFeedError, match=f"HTTP {status}") as caught:
            fetch(case, venue, start_ts=utc(NOON_MS - 10 * case.size_ms))
        assert caught.value.retry_after == retry_after
    assert fetch(case, venue, start_ts=utc(NOON_MS - 10 * case.size_ms)) != []


def test_a_connection_lost_in_the_middle_of_an_answer_loses_nothing(case: VenueCase, venue: LocalVenue) -> None:
    path = "v1/updates" if case.history == "window" else case.history
    start, end = NOON_MS - 3000 * case.size_ms, NOON_MS - 60_000
    feed = case.make(venue, PATIENT)
    reader = HistoryReader(feed, feed.source, case.kind, case.granularity, lambda: utc(NOON_MS))
    found: list[FeedRecord] = []
    lost: list[str] = []

    async def read_on(since: datetime) -> datetime:
        try:
            async for page in reader.pages("BTC", since, utc(end), 700):
                found.extend(page.records)
                since = page.upto
                venue.cut(path)  # each page after the first is cut once
        except RetryableFeedError as error:
            lost.append(str(error))
            return since
        return utc(end)

    async def run() -> None:
        since = utc(start)
        async with asyncio.timeout(30):
            while since < utc(end):
                since = await read_on(since)

    asyncio.run(run())
    expected = case.expected(venue, start, end)
    assert [(each.ts_event, each.values) for each in found] == [(each.ts_event, each.values) for each in expected]
    assert len(lost) >= 2
    assert all("cannot be reached" in each for each in lost)


@pytest.mark.parametrize("status", [401, 403])
def test_a_venue_that_refuses_is_not_asked_again(case: VenueCase, venue: LocalVenue, status: int) -> None:
    venue.fail("/", status, body='{"code": -2015, "msg": "no entry"}', times=2)
    venue.fail("/", status, body="<html>", times=5)
    with pytest.raises(PermanentFeedError, match=rf"HTTP {status}: .*no entry"):
        fetch(case, venue, start_ts=utc(NOON_MS - 10 * case.size_ms))
    with pytest.raises(PermanentFeedError, match=rf"HTTP {status}: .*no entry"):
        asyncio.run(case.make(venue, PATIENT).listen(case.subscription(), Heard()))
    with pytest.raises(PermanentFeedError, match=rf"HTTP {status}: "):
        asyncio.run(case.make(venue, PATIENT).listen(case.subscription(), Heard()))


@pytest.mark.parametrize("body", ["", "nonsense", "{}", "[{}, {}]", "[[1], [2]]", '{"parsed": 3}', "null"])
def test_an_answer_that_cannot_be_read_is_asked_for_again(case: VenueCase, venue: LocalVenue, body: str) -> None:
    path = "v1/updates" if case.history == "window" else case.history
    venue.fail(path, 200, headers={"Content-Type": "application/json"}, body=body)
    with pytest.raises(RetryableFeedError, match=r"cannot be read|expected a list|nothing to go on with"):
        fetch(case, venue, start_ts=utc(NOON_MS - 300 * case.size_ms))


def test_a_venue_that_is_not_there_is_tried_again(case: VenueCase) -> None:
    with LocalVenue() as venue:
        feed = case.make(venue, PATIENT)
    with pytest.raises(RetryableFeedError, match="cannot be reached"):
        asyncio.run(feed.fetch(case.request()))
    with pytest.raises(RetryableFeedError, match="cannot be reached"):
        asyncio.run(feed.listen(case.subscription(), Heard()))


def test_what_is_asked_for_wrongly_is_refused(case: VenueCase, venue: LocalVenue) -> None:
    for subjects, bounds, message in [
        (("BTC", " "), {}, "FEED_SUBJECTS must name at least one"),
        (("BTC",), {"limit": 0}, "the limit must be at least 1"),
        (("BTC",), {"start_ts": float("nan")}, "cannot fetch with start_ts"),
        (("BTC", "btc"), {}, "keep one"),
    ]:
        with pytest.raises(PermanentFeedError, match=message):
            fetch(case, venue, *subjects, **bounds)
    with pytest.raises(PermanentFeedError, match="FEED_GRANULARITY: unknown granularity '2m'"):
        asyncio.run(case.make(venue, PATIENT).fetch(type(case.request())(("BTC",), "tick", "2m")))
    assert venue.asked == []


# Listening.


def test_every_record_is_heard_once_when_its_interval_is_over(case: VenueCase, venue: LocalVenue) -> None:
    async def run() -> None:
        begin = case.heard_from(venue)
        async with listening(case, venue, subjects=("BTC", "ETH")) as (sink, handle):
            assert isinstance(handle, ObservableFeedHandle)
            assert isinstance(handle, LivelyFeedHandle)
            for _ in range(60):
                venue.advance(case.size_ms / 3000)
            # The last interval that the stream can show to be over.
            end = venue.now_ms // case.size_ms * case.size_ms - 8 * case.size_ms
            for subject in ("BTC", "ETH"):
                expected = case.expected(venue, begin, end, subject)
                assert len(expected) >= 6
                await sink.holds(subject, len(expected))
                assert sink.of(subject)[: len(expected)] == expected
                assert sink.of(subject) == case.expected(venue, begin, venue.now_ms, subject)[: len(sink.of(subject))]
            assert handle.silent_seconds() < PATIENT

    asyncio.run(run())


def test_heard_and_fetched_are_the_same(case: VenueCase, venue: LocalVenue) -> None:
    async def run() -> None:
        async with listening(case, venue) as (sink, _):
            for _ in range(20):
                venue.advance(case.size_ms / 1000)
            await sink.holds("BTC", 8)
            heard = sink.of("BTC")[:8]
            past = case.request(start_ts=heard[0].ts_event, end_ts=heard[-1].ts_event + MICROSECOND)
            assert list(await case.make(venue, PATIENT).fetch(past)) == heard

    asyncio.run(run())


TWISTS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "twice": lambda messages: [each for message in messages for each in (message, message)],
    "again": lambda messages: messages * 2,
    "reverse": lambda messages: messages[::-1],
    "shuffle": lambda messages: random.Random(5).sample(messages, len(messages)),
    "lose the first": lambda messages: messages[1:],
    "lose": lambda messages: messages[::2],
}
UNREADABLE = [{}, {"parsed": [{}, {}]}, {"stream": 3, "data": []}, {"data": {"k": {}}}, [], "text", 7, None]


def test_a_disorderly_stream_changes_nothing(case: VenueCase, venue: LocalVenue) -> None:
    async def run() -> None:
        begin = case.heard_from(venue)
        async with listening(case, venue) as (sink, _):
            for twist in TWISTS.values():
                venue.twist = twist
                for _ in range(3):
                    venue.advance(7 * case.size_ms / 1000)
            venue.twist = list
            for _ in range(10):
                venue.advance(case.size_ms / 1000)
            expected = case.expected(venue, begin, venue.now_ms - 9 * case.size_ms)
            await sink.holds("BTC", len(expected))
            assert sink.of("BTC")[: len(expected)] == expected

    asyncio.run(run())


def test_an_unreadable_message_costs_nothing(case: VenueCase, venue: LocalVenue) -> None:
    async def run() -> None:
        begin = case.heard_from(venue)
        async with listening(case, venue) as (sink, _):
            for ruined in UNREADABLE:
                venue.spoil = spoiled(3, lambda path: path == "stream", lambda row, ruined=ruined: ruined)
                for _ in range(12):
                    venue.advance(case.size_ms / 1000)
            expected = case.expected(venue, begin, venue.now_ms - 9 * case.size_ms)
            await sink.holds("BTC", len(expected))
            assert sink.of("BTC")[: len(expected)] == expected

    asyncio.run(run())


def test_a_lost_connection_ends_the_listening_and_a_fetch_fills_the_gap(case: VenueCase, venue: LocalVenue) -> None:
    async def run() -> None:
        begin = case.heard_from(venue)
        stored: dict[Any, FeedDataRecord] = {}
        feed = case.make(venue, PATIENT)
        sink = Heard()
        handle = await feed.listen(case.subscription(), sink)
        for _ in range(12):
            venue.advance(case.size_ms / 1000)
        await sink.holds("BTC", 3)
        venue.drop_streams()
        with pytest.raises(RetryableFeedError, match=r"stream was (lost|closed)"):
            async with asyncio.timeout(5):
                await handle.wait()
        stored.update((record.ts_event, record) for record in sink.of("BTC"))
        venue.advance(150 * case.size_ms / 1000)
        async with listening(case, venue) as (again, _):
            for record in await feed.fetch(case.request(start_ts=max(stored))):
                stored[record.ts_event] = record
            for _ in range(12):
                venue.advance(case.size_ms / 1000)
            await again.holds("BTC", 3)
            stored.update((record.ts_event, record) for record in again.of("BTC"))
        whole = case.expected(venue, begin, venue.now_ms)
        assert list(stored.values()) == whole[: len(stored)]
        assert len(stored) > 80

    asyncio.run(run())


def test_an_error_message_or_a_frame_that_is_no_json_does_not_go_unnoticed(case: VenueCase, venue: LocalVenue) -> None:
    """Binance's library ends the connection; Pyth's next update shows what was missed."""

    async def run() -> None:
        sink = Heard()
        begin = case.heard_from(venue)
        handle = await case.make(venue, PATIENT).listen(case.subscription(), sink)
        venue.send("}{")
        for _ in range(20):
            venue.advance(case.size_ms / 1000)
        if case.history != "window":
            with pytest.raises(RetryableFeedError, match=r"stream was (lost|closed)"):
                async with asyncio.timeout(5):
                    await handle.wait()
            return
        expected = case.expected(venue, begin, venue.now_ms - 9000)
        await sink.holds("BTC", len(expected))
        await handle.stop()
        assert sink.of("BTC")[: len(expected)] == expected

    asyncio.run(run())


def test_a_quiet_stream_does_not_keep_the_last_record(case: VenueCase, venue: LocalVenue) -> None:
    """Nothing comes after the interval's last trade, so only the history can say that it is over."""

    async def run() -> None:
        begin = case.heard_from(venue)
        async with listening(case, venue, QUICK) as (sink, _):
            for _ in range(10):
                venue.advance(case.size_ms / 1000)
            venue.twist = lambda messages: []
            end = venue.now_ms // case.size_ms * case.size_ms
            venue.pyth.closed.append((end // 1000, end // 1000 + 10**6))
            venue.advance(max(case.settle_ms, 1000) / 1000)
            expected = case.expected(venue, begin, end)
            await sink.holds("BTC", len(expected))
            assert sink.of("BTC")[: len(expected)] == expected

    asyncio.run(run())


def test_a_stalled_stream_is_noticed_and_nothing_is_lost(
    case: VenueCase, venue: LocalVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_module, "SLOWEST_RECHECK_SECONDS", QUICK)

    async def run() -> None:
        sink = Heard()
        begin = case.heard_from(venue)
        handle = await case.make(venue, QUICK).listen(case.subscription(), sink)
        venue.stalled = True
        waiting = asyncio.create_task(handle.wait())
        async with asyncio.timeout(10):
            while not waiting.done():
                venue.advance(10 * case.size_ms / 1000)
                await asyncio.sleep(QUICK / 2)
        with pytest.raises(RetryableFeedError, match="silent although the venue has new records of BTC"):
            await waiting
        assert sink.of("BTC") == case.expected(venue, begin, venue.now_ms)[: len(sink.of("BTC"))]
        assert len(sink.of("BTC")) > 5

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["stalled stream", "history that hangs", "no stream", "busy"])
def test_a_stop_is_immediate_whatever_the_venue_does(case: VenueCase, venue: LocalVenue, fault: str) -> None:
    async def run() -> None:
        venue.refuse_streams = fault == "no stream"
        venue.stalled = fault == "stalled stream"
        handle = await case.make(venue, QUICK).listen(case.subscription(), Heard())
        if fault == "history that hangs":
            venue.hang()
            venue.advance(100 * case.size_ms / 1000)
            await asyncio.sleep(0.15)
        elif fault == "busy":
            venue.advance(500 * case.size_ms / 1000)
        async with asyncio.timeout(1.5):
            await handle.stop()
        await handle.wait()
        venue.go_on()

    asyncio.run(run())


def test_without_a_stream_the_venue_is_polled_until_there_is_one(
    case: VenueCase, venue: LocalVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_module, "SOCKET_RETRY_SECONDS", 0.3)

    async def run() -> None:
        begin = case.heard_from(venue)
        venue.refuse_streams = True
        async with listening(case, venue, QUICK) as (sink, _):
            venue.advance(20 * case.size_ms / 1000)
            expected = case.expected(venue, begin, venue.now_ms - 9 * case.size_ms)
            await sink.holds("BTC", len(expected))
            assert venue.connections == []
            venue.refuse_streams = False
            async with asyncio.timeout(5):
                while not venue.connections:
                    await asyncio.sleep(0.05)
            for _ in range(20):
                venue.advance(case.size_ms / 1000)
            expected = case.expected(venue, begin, venue.now_ms - 9 * case.size_ms)
            await sink.holds("BTC", len(expected))
            assert sink.of("BTC")[: len(expected)] == expected

    asyncio.run(run())


def test_a_history_that_fails_ends_the_listening_with_its_reason(case: VenueCase, venue: LocalVenue) -> None:
    async def run() -> None:
        handle = await case.make(venue, QUICK).listen(case.subscription(), Heard())
        venue.fail("/", 429, headers={"Retry-After": "11"}, times=100)
        venue.advance(20 * case.size_ms / 1000)
        with pytest.raises(RetryableFeedError, match="HTTP 429") as caught:
            async with asyncio.timeout(5):
                await handle.wait()
        assert caught.value.retry_after == 11.0

    asyncio.run(run())


def test_a_subject_that_goes_away_does_not_take_the_others_with_it(
    case: VenueCase, venue: LocalVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listening ends; whoever begins anew is told which subject it is."""

    async def run() -> None:
        feed = case.make(venue, QUICK)
        alone = await feed.listen(case.subscription("ETH"), Heard())
        both = await feed.listen(case.subscription("BTC", "ETH"), Heard())
        monkeypatch.setattr("local_venue.SYMBOLS", ("BTCUSDT",))
        monkeypatch.setattr("local_venue.FEED_IDS", {each: "BTC" for each in FEED_IDS if FEED_IDS[each] == "BTC"})
        venue.stalled = True
        venue.advance(3 * case.size_ms / 1000)
        async with asyncio.timeout(5):
            with pytest.raises(RetryableFeedError, match="ETH"):
                await both.wait()
            with pytest.raises(PermanentFeedError, match="ETH"):
                await alone.wait()
        with pytest.raises(PermanentFeedError) as caught:
            await feed.listen(case.subscription("BTC", "ETH"), Heard())
        assert caught.value.subject == "ETH"

    asyncio.run(run())


def test_a_sink_that_raises_ends_the_listening_and_a_slow_one_is_not_cut_off(
    case: VenueCase, venue: LocalVenue
) -> None:
    class Full(Heard):
        async def on_record(self, record: FeedDataRecord) -> None:
            raise OSError("disk full")

    class Slow(Heard):
        begun, finished = 0, 0

        async def on_record(self, record: FeedDataRecord) -> None:
            self.begun += 1
            await asyncio.sleep(0.05)
            self.finished += 1
            await super().on_record(record)

    async def run() -> None:
        full, slow = Full(), Slow()
        failing = await case.make(venue, PATIENT).listen(case.subscription(), full)
        slowed = await case.make(venue, PATIENT).listen(case.subscription(), slow)
        for _ in range(20):
            venue.advance(case.size_ms / 1000)
        with pytest.raises(OSError, match="disk full"):
            async with asyncio.timeout(5):
                await failing.wait()
        await slow.holds("BTC", 1)
        await slowed.stop()
        assert slow.begun == slow.finished > 0

    asyncio.run(run())


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.sampled_from(["go on", "go on", "drop", "away", "lose", "again", "reverse", "garbage"]),
        min_size=4,
        max_size=14,
    )
)
def test_whatever_happens_every_record_is_had_exactly_once(case: VenueCase, steps: list[str]) -> None:
    """A worker in small: listens, fetches what it missed, and begins anew when the listening ends."""

    async def run(venue: LocalVenue) -> None:
        begin = case.heard_from(venue)
        stored: dict[Any, FeedDataRecord] = {}

        async def session(plan: list[str]) -> None:
            sink = Heard()
            feed = case.make(venue, QUICK)
            handle = await feed.listen(case.subscription(), sink)
            since = max(stored, default=utc(begin))
            stored.update((each.ts_event, each) for each in await feed.fetch(case.request(start_ts=since)))
            try:
                while plan and (step := plan.pop(0)) != "drop":
                    venue.twist = TWISTS.get(step, list)
                    if step == "garbage":
                        venue.send('{"half":')
                    venue.advance(case.size_ms * (40 if step == "away" else 5) / 1000)
                    await asyncio.sleep(0.01)
                venue.drop_streams() if plan else await handle.stop()
                await handle.wait()
            except FeedError:
                pass
            stored.update((each.ts_event, each) for each in sink.of("BTC"))
            venue.twist = list
            venue.advance(case.size_ms * 3 / 1000)

        plan = list(steps)
        while plan:
            await session(plan)
        end = venue.now_ms // case.size_ms * case.size_ms
        venue.advance(max(2 * case.settle_ms, 2 * case.size_ms) / 1000)
        last = await case.make(venue, QUICK).fetch(case.request(start_ts=max(stored, default=utc(begin))))
        stored.update((each.ts_event, each) for each in last)
        assert [stored[at] for at in sorted(stored) if at < utc(end)] == case.expected(venue, begin, end)

    with LocalVenue() as venue:
        asyncio.run(run(venue))


def test_the_name_of_a_subject_that_is_not_there_is_told(case: VenueCase, venue: LocalVenue) -> None:
    feed = case.make(venue, PATIENT)
    for attempt in (
        feed.listen(case.subscription("BTC", "NOPE", "ETH"), Heard()),
        feed.fetch(case.request("NOPE", start_ts=utc(NOON_MS - case.size_ms))),
    ):
        with pytest.raises(PermanentFeedError, match="NOPE") as caught:
            asyncio.run(attempt)
        assert caught.value.subject == "NOPE"
