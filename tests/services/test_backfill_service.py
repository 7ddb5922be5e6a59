"""Fetching history: all of it once, from where it stopped, and never completed with nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest
from candle_venue import START, CandleVenue, open_time, stored_minutes
from sqlalchemy import Engine
from sqlmodel import Session
from structlog.testing import capture_logs

from coordinator_node.db import DBBackfillJobRepository, DBFeedRecordRepository
from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds.errors import PermanentFeedError, RetryableFeedError
from coordinator_node.services.backfill import BackfillRequest, BackfillResult, BackfillService
from coordinator_node.services.backfill import service as backfill_service


class Kept:
    """Keeps what it is given; raises what it was told to."""

    def __init__(self) -> None:
        self.pages: list[list[FeedRecord]] = []
        self.failures: list[Exception] = []

    def append_records(self, records: Sequence[FeedRecord]) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.pages.append(list(records))
        return len(records)

    def minutes(self, subject: str) -> list[datetime]:
        return [record.ts_event for page in self.pages for record in page if record.subject == subject]


@pytest.fixture
def jobs(engine: Engine) -> Iterator[DBBackfillJobRepository]:
    with Session(engine) as session:
        yield DBBackfillJobRepository(session)


@pytest.fixture
def venue() -> CandleVenue:
    return CandleVenue()


def request(first: int, end: int, subjects: tuple[str, ...] = ("BTC",), **more: object) -> BackfillRequest:
    values = {"source": "venue", "kind": "candle", "granularity": "1m", "page_size": 7, **more}
    return BackfillRequest(subjects=subjects, start=open_time(first), end=open_time(end), **values)


def job_of(jobs: DBBackfillJobRepository, wanted: BackfillRequest) -> BackfillJobRow:
    return jobs.create(
        source="venue",
        subject=wanted.subjects[0],
        kind="candle",
        granularity="1m",
        start_ts=wanted.start,
        end_ts=wanted.end,
    )


def got(jobs: DBBackfillJobRepository, job: BackfillJobRow) -> BackfillJobRow:
    found = jobs.get(job.id)
    assert found is not None
    return found


async def test_it_fills_the_records_of_the_database_for_operators_own_code(
    engine: Engine, jobs: DBBackfillJobRepository, venue: CandleVenue
) -> None:
    job = job_of(jobs, request(10, 40))
    with Session(engine) as session:
        service = BackfillService(venue, DBFeedRecordRepository(session), jobs)
        done = await service.run(request(10, 40, job_id=job.id))
    assert done == BackfillResult(records_written=30, pages_fetched=5)
    assert stored_minutes(engine, "venue", "BTC") == list(range(10, 40))
    job = got(jobs, job)
    assert (job.status, job.cursor_ts, job.records_written, job.pages_fetched) == ("completed", open_time(40), 30, 5)


async def test_it_needs_no_job(venue: CandleVenue) -> None:
    kept = Kept()
    await BackfillService(venue, kept, clock=venue.clock).run(request(0, 20, ("BTC", "ETH")))
    for subject in ("BTC", "ETH"):
        assert kept.minutes(subject) == [open_time(minute) for minute in range(20)]


async def test_the_running_candle_is_left_out(venue: CandleVenue) -> None:
    kept = Kept()
    await BackfillService(venue, kept, clock=venue.clock).run(request(50, 500))
    assert kept.minutes("BTC") == [open_time(minute) for minute in range(50, 60)]


async def test_an_interrupted_fetch_goes_on_from_its_cursor(jobs: DBBackfillJobRepository, venue: CandleVenue) -> None:
    job, kept = job_of(jobs, request(0, 30)), Kept()
    jobs.set_status(job.id, "running")
    jobs.update_progress(job.id, cursor_ts=open_time(12), records_written=12, pages_fetched=2)
    service = BackfillService(venue, kept, jobs, venue.clock)
    done = await service.run(request(0, 30, job_id=job.id, cursor_ts=open_time(12)))
    assert kept.minutes("BTC") == [open_time(minute) for minute in range(12, 30)]
    assert done.records_written == 18
    assert (got(jobs, job).records_written, got(jobs, job).status) == (30, "completed")


async def test_a_range_without_a_record_is_failed_and_says_so(
    jobs: DBBackfillJobRepository, venue: CandleVenue
) -> None:
    venue.holes = {("BTC", minute) for minute in range(30)}
    job = job_of(jobs, request(0, 30))
    with pytest.raises(PermanentFeedError, match="venue has no 1m candle records of BTC from 2026-03-01"):
        await BackfillService(venue, Kept(), jobs, venue.clock).run(request(0, 30, job_id=job.id))
    job = got(jobs, job)
    assert (job.status, job.records_written) == ("failed", 0)
    assert "venue has no 1m candle records of BTC" in str(job.error)


async def test_what_the_source_refuses_fails_with_its_reason(jobs: DBBackfillJobRepository, venue: CandleVenue) -> None:
    job = job_of(jobs, request(0, 30))
    venue.fetch_failures = [PermanentFeedError("no symbol BTC")]
    with pytest.raises(PermanentFeedError):
        await BackfillService(venue, Kept(), jobs, venue.clock).run(request(0, 30, job_id=job.id))
    assert (got(jobs, job).status, got(jobs, job).error) == ("failed", "PermanentFeedError: no symbol BTC")


async def test_a_subject_that_is_refused_costs_the_others_nothing(venue: CandleVenue) -> None:
    venue.fetch_failures = [PermanentFeedError("no symbol NONE")]
    kept = Kept()
    with pytest.raises(PermanentFeedError, match="NONE"):
        await BackfillService(venue, kept, clock=venue.clock).run(request(0, 20, ("NONE", "BTC")))
    assert len(kept.minutes("BTC")) == 20


async def test_a_busy_venue_is_asked_again_without_a_page_lost(
    venue: CandleVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        venue.now += timedelta(seconds=seconds)

    monkeypatch.setattr(backfill_service.asyncio, "sleep", sleep)
    venue.fetch_failures = [RetryableFeedError("busy"), RetryableFeedError("429", retry_after=20), KeyError("x")]
    kept = Kept()
    await BackfillService(venue, kept, clock=venue.clock).run(request(0, 20))
    assert kept.minutes("BTC") == [open_time(minute) for minute in range(20)]
    assert slept[0] == 0
    assert slept[1] >= 20
    assert 1 < slept[2] < 3


async def test_a_long_fetch_says_how_much_longer_it_takes(venue: CandleVenue) -> None:
    class Slow(Kept):
        def append_records(self, records: Sequence[FeedRecord]) -> int:
            venue.now += timedelta(seconds=20)
            return super().append_records(records)

    with capture_logs() as logs:
        await BackfillService(venue, Slow(), clock=venue.clock).run(request(0, 40, page_size=10))
    told = [(each["percent"], each["seconds_left"]) for each in logs if each["event"] == "backfill goes on"]
    assert told == [(47.5, 44), (97.5, 2)]


async def test_a_venue_that_stays_away_is_given_up(
    jobs: DBBackfillJobRepository, venue: CandleVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(seconds: float) -> None:
        venue.now += timedelta(seconds=seconds)

    monkeypatch.setattr(backfill_service.asyncio, "sleep", sleep)
    venue.fetch_failures = [RetryableFeedError("busy")] * 100
    job = job_of(jobs, request(0, 30))
    with pytest.raises(PermanentFeedError, match="given up after 12 failures in a row: busy"):
        await BackfillService(venue, Kept(), jobs, venue.clock).run(request(0, 30, job_id=job.id))
    assert got(jobs, job).status == "failed"


async def test_a_full_disk_fails_the_job_with_the_reason(jobs: DBBackfillJobRepository, venue: CandleVenue) -> None:
    kept, job = Kept(), job_of(jobs, request(0, 30))
    kept.failures = [OSError(28, "No space left on device")]
    with pytest.raises(OSError, match="No space"):
        await BackfillService(venue, kept, jobs, venue.clock).run(request(0, 30, job_id=job.id))
    assert (got(jobs, job).status, "No space left" in str(got(jobs, job).error)) == ("failed", True)


async def test_an_unknown_job_is_named(jobs: DBBackfillJobRepository, venue: CandleVenue) -> None:
    with pytest.raises(LookupError, match="no backfill job 'x'"):
        await BackfillService(venue, Kept(), jobs, venue.clock).run(request(0, 30, job_id="x"))


async def test_a_naive_range_is_utc(venue: CandleVenue) -> None:
    kept = Kept()
    wanted = BackfillRequest(
        "venue",
        ("BTC",),
        "candle",
        "1m",
        start=START.replace(tzinfo=None),
        end=(START + timedelta(minutes=3)).replace(tzinfo=None),
    )
    await BackfillService(venue, kept, clock=venue.clock).run(wanted)
    assert kept.minutes("BTC") == [open_time(minute) for minute in range(3)]
