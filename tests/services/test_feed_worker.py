"""What the feed stage does about a source's refusals, failures, silence, and candles before their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from candle_venue import (
    MINUTE,
    CandleVenue,
    FeedProcess,
    candle,
    candle_settings,
    expire_leases,
    open_time,
    stored_minutes,
    watermark,
)
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.feeds import FeedDataRecord, FeedFetchRequest
from coordinator_node.feeds.errors import FeedError, NoHistoryError, PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.validation import AskedFor
from coordinator_node.services.feed_data import catch_up, inbox, listening
from coordinator_node.services.feed_data.gap_log import RETRY_SECONDS

type Starter = Callable[..., FeedProcess]

HISTORY = list(range(51, 60))


@pytest.fixture
async def start(engine: Engine) -> AsyncIterator[Starter]:
    """Starts workers that hold the lease, and ends them."""
    made: list[FeedProcess] = []

    def begin(venue: CandleVenue, **more: Any) -> FeedProcess:
        expire_leases(engine)
        made.append(FeedProcess(engine, venue, f"worker{len(made)}", candle_settings("venue", **more)))
        made[-1].lease.keep()
        return made[-1]

    yield begin
    for process in made:
        await process.end()


def said(process: FeedProcess) -> list[str]:
    return [str(failure) for failure in process.failures]


@pytest.mark.parametrize("named", [True, False])
async def test_a_subject_that_the_source_does_not_have_costs_the_others_nothing(
    start: Starter, engine: Engine, *, named: bool
) -> None:
    venue = CandleVenue()
    venue.refused, venue.names_refused = {"NONE", "NADA"}, named
    process = start(venue, subjects=("NONE", "BTC", "NADA", "ETH"))
    await process.steps()
    await venue.advance()
    await process.steps()
    assert process.failures == []
    for subject in ("BTC", "ETH"):
        assert stored_minutes(engine, "venue", subject) == [*HISTORY, 60]
    assert {request.subjects for request in venue.fetches} == {("BTC",), ("ETH",)}


async def test_a_source_that_refuses_everything_ends_the_worker_with_its_reason(start: Starter) -> None:
    venue = CandleVenue()
    venue.listen_failures = [PermanentFeedError("401: set PYTH_API_KEY")] * 3
    with pytest.raises(ConfigurationError, match="401: set PYTH_API_KEY"):
        await start(venue).service.step()


async def test_a_refusal_of_the_subjects_together_is_the_whole_requests(start: Starter) -> None:
    venue = CandleVenue()
    venue.listen_failures = [PermanentFeedError("one subject at a time")]
    process = start(venue)
    with pytest.raises(ConfigurationError, match="one subject at a time"):
        await process.service.step()


async def test_a_dropped_connection_is_made_anew_and_what_was_missed_is_fetched(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue)
    await process.steps()
    venue.drop_streams()
    await asyncio.sleep(0)
    for _ in range(30):
        await venue.advance()
    await process.steps(2)
    assert said(process) == ["connection reset"]
    assert venue.listened_to
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, *range(60, 90)]


async def test_what_was_heard_before_the_connection_dropped_is_stored(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue)
    await process.steps()
    await venue.advance()
    venue.drop_streams()
    venue.fetch_failures = [RetryableFeedError("busy")]
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, 60]


async def test_a_listening_that_fails_again_and_again_is_begun_after_growing_pauses(start: Starter) -> None:
    venue = CandleVenue()
    venue.listen_failures = [RetryableFeedError("refused")] * 5
    process = start(venue)
    await process.steps(10)
    assert len(process.failures) == 2  # one at once, then it waits
    venue.now += timedelta(seconds=2)
    await process.steps(10)
    assert len(process.failures) == 3
    venue.now += timedelta(seconds=60)
    await process.steps()
    venue.now += timedelta(seconds=60)
    await process.steps()
    venue.now += timedelta(seconds=60)
    await process.steps()
    assert venue.listened_to


async def test_a_listening_that_ends_for_no_reason_ends_the_worker(start: Starter) -> None:
    class Silent(CandleVenue):
        async def listen(self, sub: Any, sink: Any) -> Any:
            return Handle()

    class Handle:
        async def wait(self) -> None:
            """It just ends."""

        async def stop(self) -> None:
            """Nothing to stop."""

    process = start(Silent())
    await process.steps()
    with pytest.raises(FeedError, match="ended although nobody stopped it"):
        await process.watches[0]


async def test_a_silent_source_is_listened_to_anew(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue, subjects=("BTC",))
    await process.steps()
    venue.stalled = True
    for _ in range(5):
        await venue.advance()
    await process.steps()
    assert process.failures == []
    venue.now += timedelta(seconds=1)
    await process.steps()
    assert said(process) == ["the source has been silent for 301 s: listening anew"]
    assert not venue.listened_to
    venue.stalled = False
    await process.steps()
    assert venue.listened_to
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, *range(60, 65)]


async def test_a_quiet_market_is_no_silence_where_the_source_can_tell(start: Starter) -> None:
    class Lively(CandleVenue):
        silent = 0.0

        async def listen(self, sub: Any, sink: Any) -> Any:
            handle = await super().listen(sub, sink)
            handle.silent_seconds = lambda: self.silent
            return handle

    venue = Lively()
    process = start(venue)
    await process.steps()
    venue.stalled = True
    for _ in range(20):
        await venue.advance()
        await process.steps()
    assert process.failures == []
    venue.silent = 301.0
    await process.steps()
    assert said(process) == ["the source has been silent for 301 s: listening anew"]


async def test_a_source_whose_records_are_all_refused_is_told_of_and_not_taken_for_alive(
    start: Starter, engine: Engine
) -> None:
    venue = CandleVenue()
    process = start(venue, subjects=("BTC",))
    await process.steps()
    venue.holes = {("BTC", minute) for minute in range(60, 70)}  # its history has none of them either
    with capture_logs() as logs:
        for minute in range(60, 66):
            await venue.advance()
            other = candle("venue", "BTC", minute)
            await venue.say(FeedDataRecord(**{**vars(other), "granularity": "5m"}))
            await process.steps()
    reason = "record of 'BTC' refused: its granularity is 5m, but 1m was asked for"
    assert said(process) == [f"no record for 360 s that can be stored: {reason}; listening anew"]
    assert [each["reason"] for each in logs if each["event"] == "record refused"] == [reason]
    assert stored_minutes(engine, "venue", "BTC") == HISTORY


async def test_what_is_heard_is_stored_under_the_names_of_the_settings(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue)
    await process.steps()
    await venue.advance(lambda closed: [])
    for record in (
        FeedDataRecord(**{**vars(candle("My Exchange", "BTC", 60)), "subject": "btc"}),
        FeedDataRecord(**{**vars(candle("My Exchange", "ETH", 60)), "ts_event": open_time(60)}),
        candle("venue", "DOGE", 60),
    ):
        await process._sinks[0].on_record(record)
    asked = len(venue.fetches)
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == stored_minutes(engine, "venue", "ETH") == [*HISTORY, 60]
    assert len(venue.fetches) == asked
    with engine.connect() as connection:
        subjects = connection.execute(text("SELECT DISTINCT source, subject FROM feed_records ORDER BY 2")).all()
    assert [tuple(row) for row in subjects] == [("venue", "BTC"), ("venue", "ETH")]


async def test_a_source_that_hangs_when_it_is_stopped_is_left_behind(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(CandleVenue):
        async def listen(self, sub: Any, sink: Any) -> Any:
            return Handle()

    class Handle:
        async def stop(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(listening, "STOP_SECONDS", 0.01)
    process = start(Hanging())
    await process.steps()
    await process.service.close()
    await asyncio.gather(*process.watches)


async def test_a_missed_candle_is_fetched_before_later_ones_move_the_watermark(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue)
    await process.steps()
    await venue.advance(lambda closed: closed[1:])  # BTC's is lost
    await venue.advance()
    venue.fetch_failures = [RetryableFeedError("busy", retry_after=30)]
    await process.steps()
    assert said(process) == ["busy"]
    assert watermark(engine, "venue", "BTC") == open_time(59)
    assert watermark(engine, "venue", "ETH") == open_time(61)  # nothing of it was missed
    asked = len(venue.fetches)
    venue.now += timedelta(seconds=29)
    await process.steps(3)
    assert len(venue.fetches) == asked
    venue.now += timedelta(seconds=5)
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, 60, 61]
    assert watermark(engine, "venue", "BTC") == open_time(61)


async def test_a_candle_that_is_never_heard_is_fetched_when_it_is_overdue(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue)
    await process.steps()
    await venue.advance(lambda closed: closed[1:])
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == HISTORY
    venue.now += timedelta(seconds=6)
    asked = len(venue.fetches)
    await process.steps(5)
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, 60]
    assert len(venue.fetches) == asked + 1


async def test_a_candle_before_its_close_is_not_stored_but_fetched_when_it_has_closed(
    start: Starter, engine: Engine
) -> None:
    venue = CandleVenue()
    process = start(venue)
    await process.steps()
    venue.now = open_time(60) + timedelta(seconds=58)  # by this machine's clock, which is slow
    await venue.say(candle("venue", "BTC", 60, part=0.9), candle("venue", "ETH", 60, part=0.9, final=False))
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == HISTORY
    venue.now += timedelta(seconds=2)
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, 60]
    assert stored_minutes(engine, "venue", "ETH") == HISTORY  # a running candle announces nothing


async def test_a_record_from_a_far_future_moves_no_watermark(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue)
    await process.steps()
    await venue.say(candle("venue", "BTC", 100_000))
    await process.steps()
    assert watermark(engine, "venue", "BTC") == open_time(59)


async def test_a_source_without_history_is_stored_as_it_is_heard(start: Starter, engine: Engine) -> None:
    class Forgetful(CandleVenue):
        async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
            raise NoHistoryError("no past records here")

    venue = Forgetful()
    process = start(venue)
    await process.steps()
    await venue.advance()
    await venue.advance(lambda closed: [])
    await venue.advance()
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == [60, 62]
    assert process.failures == []


async def test_a_source_that_raises_anything_is_asked_again(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    venue.fetch_failures = [KeyError("result")]
    process = start(venue)
    await process.steps(2)
    assert said(process) == ["fetching BTC failed: KeyError: 'result'"]
    assert stored_minutes(engine, "venue", "BTC") == HISTORY


async def test_a_long_history_is_fetched_in_several_passes(
    start: Starter, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "PAGES_A_PASS", 3)
    venue = CandleVenue()
    venue.most = 3
    process = start(venue, subjects=("BTC",))
    result = await process.service.step()
    assert (result.counts["caught_up"], result.again) == (9, True)
    await venue.advance()
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, 60]


async def test_a_slow_history_does_not_hold_up_what_is_heard_of_the_others(
    start: Starter, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "SECONDS_A_PASS", 0.0)
    venue = CandleVenue()
    process = start(venue)
    await process.steps(4)
    assert stored_minutes(engine, "venue", "ETH") == HISTORY
    venue.most = 1
    await venue.advance(lambda closed: closed[1:])  # BTC's is lost, and its history comes a candle at a time
    await venue.advance()
    result = await process.service.step()
    assert (result.counts["caught_up"], result.again) == (1, True)
    assert stored_minutes(engine, "venue", "ETH") == [*HISTORY, 60, 61]
    await process.steps(2)
    assert stored_minutes(engine, "venue", "BTC") == [*HISTORY, 60, 61]


async def test_what_retention_would_delete_at_once_is_not_fetched(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue, subjects=("BTC",), feed_record_ttl_days=5 / 1440)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO feed_ingestion_state (id, source, subject, kind, granularity, last_event_ts, updated_at)"
                " VALUES ('w', 'venue', 'BTC', 'candle', '1m', :at, :at)"
            ),
            {"at": open_time(0)},
        )
    await process.steps()
    assert stored_minutes(engine, "venue", "BTC") == list(range(56, 60))


async def test_a_pass_gives_up_what_it_asked_when_the_worker_is_to_end(start: Starter) -> None:
    class Hanging(CandleVenue):
        async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
            return await asyncio.Event().wait()

    process = start(Hanging())
    passing = asyncio.create_task(process.service.step())
    await asyncio.sleep(0.05)
    process.service._stop.set()
    assert (await passing).idle


async def test_a_source_that_brings_more_than_is_stored_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "HELD_RECORDS", 3)
    monkeypatch.setattr(inbox, "BURST_RECORDS", 2)
    asked_for = AskedFor("venue", ("BTC",), "candle", "1m")
    box = inbox.Inbox(lambda: open_time(100), lambda: None, asked_for, MINUTE)
    bringing = asyncio.create_task(bring(box, 5))
    await asyncio.sleep(0.01)
    kept: list[FeedDataRecord] = []
    while burst := box.burst():
        assert len(burst) <= 2
        assert box.burst() == burst
        box.stored(burst)
        kept += burst
        await asyncio.sleep(0.01)
    await bringing
    assert [record.ts_event for record in kept] == [open_time(minute) for minute in range(5)]


async def bring(box: inbox.Inbox, count: int) -> None:
    for minute in range(count):
        await box.on_record(candle("venue", "BTC", minute))


def gaps(engine: Engine) -> list[dict[str, Any]]:
    query = text("SELECT meta_jsonb->'gaps' FROM feed_ingestion_state WHERE subject = 'BTC'")
    with engine.connect() as connection:
        return list(connection.execute(query).scalar_one())


def delete(engine: Engine, minute: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM feed_records WHERE ts_event = :at"), {"at": open_time(minute)})


async def test_a_hole_among_the_stored_candles_is_filled_after_a_start(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    await start(venue).steps()
    delete(engine, 55)
    delete(engine, 57)
    process = start(venue)
    results = [(await process.service.step()).counts["repaired"] for _ in range(5)]
    assert sorted(results) == [0, 1, 1, 1, 1]  # two holes of two subjects, one a pass
    assert stored_minutes(engine, "venue", "BTC") == HISTORY
    assert gaps(engine) == []


async def test_a_gap_of_the_venue_is_asked_for_some_times_and_then_left(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    venue.holes = {("BTC", 55), ("BTC", 56)}
    process = start(venue, subjects=("BTC",))
    await process.steps(3)
    asked = len(venue.fetches)
    assert [gap["asked"] for gap in gaps(engine)] == [1]
    for seconds in (*RETRY_SECONDS, 86400.0):
        venue.now += timedelta(seconds=seconds + 60)
        venue.drop_streams()
        await process.steps(3)
    assert [(gap["asked"], gap["ask_at"]) for gap in gaps(engine)] == [(4, None)]
    assert (gaps(engine)[0]["after"], gaps(engine)[0]["before"]) == (
        open_time(54).isoformat(),
        open_time(57).isoformat(),
    )
    into_gap = [r for r in venue.fetches[asked:] if r.end_ts == open_time(57).timestamp()]
    assert len(into_gap) == len(RETRY_SECONDS)


async def test_a_gap_that_the_venue_mends_in_part_is_filled_so_far(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    venue.holes = {("BTC", 54), ("BTC", 55), ("BTC", 56)}
    process = start(venue, subjects=("BTC",))
    await process.steps(2)
    venue.holes = {("BTC", 54)}
    venue.now += timedelta(seconds=RETRY_SECONDS[0] + 60)
    await process.steps(3)
    assert [minute for minute in stored_minutes(engine, "venue", "BTC") if minute < 60] == [51, 52, 53, *range(55, 60)]
    assert [gap["before"] for gap in gaps(engine)] == [open_time(55).isoformat()]


async def test_a_check_looks_only_at_what_was_stored_since_the_last(start: Starter, engine: Engine) -> None:
    venue = CandleVenue()
    process = start(venue, subjects=("BTC",), feed_backfill_minutes=10)
    await process.steps(2)
    delete(engine, 55)
    for _ in range(3):
        await venue.advance()
        await process.steps(2)
    assert 55 not in stored_minutes(engine, "venue", "BTC")
    checked_until = text("SELECT meta_jsonb->>'checked_until' FROM feed_ingestion_state")
    with engine.connect() as connection:
        assert connection.execute(checked_until).scalar_one() == open_time(62).isoformat()
