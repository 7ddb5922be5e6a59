"""Jobs: one at a time, run by whoever holds the lease, resumed by whoever holds it next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from candle_venue import CandleVenue, candle_settings, expire_leases, open_time
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.db.engine import transaction
from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.file_names import UnsafeNameError
from coordinator_node.feeds import DataFeed, FeedDataRecord, FeedFetchRequest
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.runtime.leases import Lease, LeaseLostError
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.backfill import runner as backfill_runner
from coordinator_node.services.backfill.jobs import LEASE_NAME, BackfillBusyError, HistoryRange, any_open, request_job
from coordinator_node.services.backfill.runner import BackfillRunner

NOW = open_time(60)


class GatedVenue(CandleVenue):
    """Gives pages only as far as `gate` lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gated_from: datetime | None = None

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        if self.gated_from is not None and req.start_ts > self.gated_from.timestamp():
            await self.gate.wait()
        return await super().fetch(req)


class Runners:
    """Makes runners, each as of a process of its own, and ends them."""

    def __init__(self, engine: Engine, root: Path, venue: CandleVenue) -> None:
        self.engine = engine
        self.root = root
        self.venue = venue
        self.made: list[BackfillRunner] = []

    def start(self, feed_of: Callable[[str], DataFeed] | None = None) -> BackfillRunner:
        lease = Lease(self.engine, LEASE_NAME, f"runner{len(self.made)}")
        lease.keep()
        settings = candle_settings("venue", backfill_data_dir=self.root)
        feed_of = feed_of or (lambda source: self.venue)
        self.made.append(BackfillRunner(self.engine, settings, lease, self.venue.clock, feed_of))
        return self.made[-1]


@pytest.fixture
async def runners(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runners]:
    monkeypatch.setattr(backfill_runner, "PAGE_RECORDS", 10)
    made = Runners(engine, tmp_path, GatedVenue())
    yield made
    for runner in made.made:
        await runner.close()


def order(engine: Engine, subject: str = "BTC", first: int = 0, end: int = 50, **more: Any) -> str:
    wanted = HistoryRange(
        **{"source": "venue", "kind": "candle", "granularity": "1m", **more},
        subject=subject,
        start=open_time(first),
        end=open_time(end),
    )
    with transaction(engine) as session:
        return request_job(session, wanted, NOW).id


def job(engine: Engine, job_id: str) -> BackfillJobRow:
    with Session(engine) as session:
        return session.get_one(BackfillJobRow, job_id)


async def until(runner: BackfillRunner, true: Callable[[], bool]) -> list[PassResult]:
    results = []
    for _ in range(500):
        results.append(await runner.step())
        if true():
            return results
        await asyncio.sleep(0.01)
    raise AssertionError("what was waited for did not come")


def minutes(root: Path, subject: str = "BTC") -> list[datetime]:
    table = pq.read_table(root / "venue" / subject / "candle" / "1m" / "2026-03-01.parquet")
    return list(table["ts_event"].to_pylist())


async def test_a_job_is_run_into_files(engine: Engine, runners: Runners) -> None:
    job_id = order(engine)
    assert any_open(engine)
    runner = runners.start()
    await until(runner, lambda: not any_open(engine))
    done = job(engine, job_id)
    assert (done.status, done.records_written, done.pages_fetched) == ("completed", 50, 5)
    assert done.cursor_ts == open_time(50)
    assert minutes(runners.root) == [open_time(minute) for minute in range(50)]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM feed_records")).scalar() == 0


async def test_nobody_runs_a_job_without_the_lease(engine: Engine, runners: Runners) -> None:
    order(engine)
    other = Lease(engine, LEASE_NAME, "other")
    other.keep()
    runner = runners.start()
    assert (await runner.step()).idle
    assert any_open(engine)


async def test_a_job_left_running_goes_on_from_its_cursor_before_a_new_one(engine: Engine, runners: Runners) -> None:
    venue = runners.venue
    assert isinstance(venue, GatedVenue)
    venue.gated_from = open_time(19)
    first = order(engine)
    died = runners.start()
    await until(died, lambda: job(engine, first).pages_fetched == 2)
    expire_leases(engine)  # it is dead for the others; its lease has run out
    second = order(engine, "ETH")
    venue.gated_from = None
    asked = len(venue.fetches)
    await until(runners.start(), lambda: not any_open(engine))
    assert venue.fetches[asked].start_ts >= open_time(19).timestamp()
    assert (job(engine, first).status, job(engine, first).records_written) == ("completed", 50)
    assert job(engine, second).status == "completed"
    assert minutes(runners.root) == [open_time(minute) for minute in range(50)]


async def test_who_lost_the_lease_changes_neither_file_nor_row(engine: Engine, runners: Runners) -> None:
    venue = runners.venue
    assert isinstance(venue, GatedVenue)
    venue.gated_from = open_time(19)
    job_id = order(engine)
    stopped = runners.start()
    await until(stopped, lambda: job(engine, job_id).pages_fetched == 2)
    expire_leases(engine)
    Lease(engine, LEASE_NAME, "other").keep()
    venue.gate.set()  # it wakes, and does not know
    with pytest.raises(LeaseLostError):
        await until(stopped, lambda: False)
    assert minutes(runners.root) == [open_time(minute) for minute in range(20)]
    assert [path.name for path in (runners.root / "venue/BTC/candle/1m").iterdir()] == ["2026-03-01.parquet"]
    assert (job(engine, job_id).status, job(engine, job_id).records_written) == ("running", 20)


async def test_closing_leaves_the_job_to_the_next(engine: Engine, runners: Runners) -> None:
    venue = runners.venue
    assert isinstance(venue, GatedVenue)
    venue.gated_from = open_time(19)
    job_id = order(engine)
    runner = runners.start()
    await until(runner, lambda: job(engine, job_id).pages_fetched == 2)
    await runner.close()
    assert job(engine, job_id).status == "running"


async def test_a_source_that_cannot_be_made_fails_its_job_and_the_next_is_run(engine: Engine, runners: Runners) -> None:
    def feed_of(source: str) -> DataFeed:
        if source == "none":
            raise PermanentFeedError("there is no FEED_SOURCE=none")
        return runners.venue

    first = order(engine, source="none")
    runner = runners.start(feed_of)
    await until(runner, lambda: not any_open(engine))
    assert (job(engine, first).status, job(engine, first).error) == (
        "failed",
        "PermanentFeedError: there is no FEED_SOURCE=none",
    )
    second = order_after(engine)
    await until(runner, lambda: not any_open(engine))
    assert job(engine, second).status == "completed"


def order_after(engine: Engine) -> str:
    expire_leases(engine)
    return order(engine)


async def test_what_nobody_foresaw_fails_one_job(engine: Engine, runners: Runners) -> None:
    job_id = order(engine)
    (runners.root / "venue").write_text("a file in the place of a folder")
    await until(runners.start(), lambda: not any_open(engine))
    assert job(engine, job_id).status == "failed"
    assert "Error" in str(job(engine, job_id).error)


def test_only_a_waiting_job_or_one_that_really_runs_stands_in_the_way(engine: Engine) -> None:
    waiting = order(engine)
    with pytest.raises(BackfillBusyError, match=f"backfill job {waiting} is pending"):
        order(engine, "ETH")
    with engine.begin() as connection:
        connection.execute(text("UPDATE backfill_jobs SET status = 'running'"))
    Lease(engine, LEASE_NAME, "runner").keep()
    with pytest.raises(BackfillBusyError, match="is running") as busy:
        order(engine, "ETH")
    assert busy.value.job_id == waiting
    expire_leases(engine)
    assert order(engine, "ETH") != waiting


def test_of_many_who_ask_at_once_one_is_heard(engine: Engine) -> None:
    ready = threading.Barrier(6)

    def ask(_: int) -> str:
        ready.wait()
        try:
            return order(engine)
        except BackfillBusyError:
            return "busy"

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    assert answers.count("busy") == 5


def test_what_cannot_be_fetched_is_refused_when_it_is_asked_for(engine: Engine) -> None:
    for first, end in ((50, 50), (50, 40), (60, 90)):
        with pytest.raises(ValueError, match="nothing to fetch"):
            order(engine, first=first, end=end)
    for part in ("subject", "source"):
        with pytest.raises(UnsafeNameError, match=part):
            order(engine, **{part: "../x"})
    assert not any_open(engine)


def test_an_end_in_the_future_becomes_now(engine: Engine) -> None:
    assert job(engine, order(engine, end=10**6)).end_ts == NOW
