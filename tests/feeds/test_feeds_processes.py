"""Real processes against the local venue: a backfill that is killed, a worker that is ended in the middle of a gap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from local_venue import LocalVenue
from sqlalchemy import Engine, text
from venue_market import kline, utc

DAYS, FIRST_MS = 30, 1_711_929_600_000  # from 2024-04-01 on
COMMAND = Path(sys.executable).with_name("coordinator-node")
# What a busy machine may need; none of it is waited for on one that works.
PATIENCE_SECONDS = 120


@pytest.fixture
def venue() -> Iterator[LocalVenue]:
    with LocalVenue() as made:
        yield made


class Processes:
    """Starts processes that work on the venue and the database, and ends those that are left."""

    def __init__(self, venue: LocalVenue, database_url: str, folder: Path) -> None:
        self._folder = folder
        self._made: list[subprocess.Popen[str]] = []
        options = {f"FEED_OPT_{name}": value for name, value in venue.binance_options().items()}
        self._environment = {
            **os.environ,
            **options,
            "DATABASE_URL": database_url,
            "BACKFILL_DATA_DIR": str(folder / "files"),
            "FEED_SOURCE": "binance",
            "FEED_KIND": "candle",
            "FEED_GRANULARITY": "1m",
        }

    def start(self, *command: str | Path, **variables: str) -> subprocess.Popen[str]:
        self._made.append(
            subprocess.Popen(
                list(map(str, command)),
                env={**self._environment, **variables},
                cwd=self._folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return self._made[-1]

    def end(self) -> None:
        for process in self._made:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def processes(venue: LocalVenue, database_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(venue, database_url, tmp_path)
    yield made
    made.end()


def until(process: subprocess.Popen[str], true: Callable[[], bool]) -> None:
    """Wait for a moment in the life of a process."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if process.poll() is not None:
            raise AssertionError(f"it ended by itself with {process.returncode}: {process.communicate()}")
        assert time.monotonic() < give_up_at, "the moment did not come"
        time.sleep(0.002)


def expire_leases(engine: Engine) -> None:
    """As if the six seconds had passed after which a dead process's lease is free."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE leases SET expires_at = clock_timestamp()"))


def test_a_backfill_killed_three_times_writes_thirty_files_that_equal_the_source(
    venue: LocalVenue, processes: Processes, engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "files" / "binance" / "BTC" / "candle" / "1m"
    command = (COMMAND, "backfill", "--source", "binance", "--subject", "BTC", "--kind", "candle")
    stretch = ("--granularity", "1m", "--from", "2024-04-01", "--to", "2024-05-01")
    before = 0

    def pages() -> int:
        return len(venue.asked_for("klines")) - before

    def is_writing() -> bool:
        return any(folder.glob(".*.unfinished"))

    moments: list[Callable[[], bool]] = [
        lambda: pages() >= 4,
        lambda: pages() >= 4 and (is_writing() or pages() >= 12),
        lambda: pages() >= 9,
    ]
    for moment in moments:
        before = len(venue.asked_for("klines"))
        process = processes.start(*command, *stretch)
        until(process, moment)
        process.kill()
        process.wait()
        expire_leases(engine)
    process = processes.start(*command, *stretch)
    said, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, complaints
    assert said.splitlines()[-1] == f"43,200 records in {folder}"
    assert said.startswith("going on with job ")

    first = datetime(2024, 4, 1, tzinfo=UTC)
    days = [first + timedelta(days=day) for day in range(DAYS)]
    assert sorted(path.name for path in folder.iterdir()) == [f"{day:%Y-%m-%d}.parquet" for day in days]
    for number, day in enumerate(days):
        table = pq.read_table(folder / f"{day:%Y-%m-%d}.parquet")
        midnight = FIRST_MS + number * 86_400_000
        source = [kline("BTCUSDT", "1m", midnight + minute * 60_000) for minute in range(1440)]
        assert table.column("ts_event").cast(pa.int64()).to_pylist() == [row[0] * 1000 for row in source]
        for column, name in enumerate(("open", "high", "low", "close", "volume"), start=1):
            assert table.column(name).to_pylist() == [float(row[column]) for row in source]
        for name, value in {"source": "binance", "subject": "BTC", "kind": "candle", "granularity": "1m"}.items():
            assert pc.unique(table.column(name)).to_pylist() == [value]
        assert pc.unique(table.column("meta")).to_pylist() == ["{}"]
        assert table.column("price").null_count == 1440
    assert table.schema.field("ts_event").type == pa.timestamp("us", tz="UTC")

    with engine.connect() as connection:
        jobs = connection.execute(text("SELECT status, records_written, cursor_ts FROM backfill_jobs")).all()
    assert [tuple(job) for job in jobs] == [("completed", 43_200, utc(FIRST_MS + DAYS * 86_400_000))]


def test_a_worker_ends_at_once_in_the_middle_of_a_weeks_gap(
    venue: LocalVenue, processes: Processes, engine: Engine
) -> None:
    venue.now_ms = round(time.time() * 1000)
    week_ago = utc(venue.now_ms // 1000 * 1000 - 7 * 86_400_000)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO feed_ingestion_state (id, source, subject, kind, granularity, last_event_ts, updated_at)"
                " VALUES ('w', 'binance', 'BTC', 'candle', '1s', :at, :at)"
            ),
            {"at": week_ago},
        )
    worker = processes.start(
        sys.executable, "-m", "coordinator_node.workers.feed_data_worker", FEED_GRANULARITY="1s", FEED_SUBJECTS="BTC"
    )
    until(worker, lambda: len(venue.asked_for("klines")) > 4)
    worker.send_signal(signal.SIGTERM)
    _, complaints = worker.communicate(timeout=10)  # what the contract grants
    assert worker.returncode == 0, complaints
    with engine.connect() as connection:
        stored = connection.execute(
            text("SELECT count(*) AS count, max(ts_event) AS newest FROM feed_records WHERE ts_event > :at"),
            {"at": week_ago},
        ).one()
        watermark, held = connection.execute(
            text(
                "SELECT last_event_ts, (SELECT count(*) FROM leases WHERE expires_at > clock_timestamp())"
                " FROM feed_ingestion_state"
            )
        ).one()
    # All up to the watermark, nothing beyond it, and nothing that keeps the next worker waiting.
    assert watermark == (stored.newest or week_ago) == week_ago + stored.count * timedelta(seconds=1)
    assert held == 0
