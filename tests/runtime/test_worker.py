"""A worker process: exit codes, one line that says why, and how it ends on signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

BODY = """
import sys, time
from coordinator_node.db.engine import engine_from, transaction
from coordinator_node.runtime.loop import PassResult, in_thread
from coordinator_node.runtime.worker import run_worker
from sqlalchemy import text

def build(settings):
    engine = engine_from(settings, "test")
    def step():
        with transaction(engine) as session:
            session.connection().execute(text("INSERT INTO engine_state VALUES ('began', '{}', now())"
                                              " ON CONFLICT DO NOTHING"))
        with transaction(engine) as session:
            time.sleep(float(sys.argv[1]))
            session.connection().execute(text("INSERT INTO engine_state VALUES ('ended', '{}', now())"
                                              " ON CONFLICT DO NOTHING"))
        return PassResult()
    async def body(worker):
        worker.lease("test")
        await worker.loop(in_thread(step), 3600)
    return engine, body

sys.exit(run_worker("test", build))
"""


@contextmanager
def started(tmp_path: Path, url: str, pass_seconds: float, **env: str) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "worker.py"
    script.write_text(BODY)
    process = subprocess.Popen(
        [sys.executable, str(script), str(pass_seconds)],
        env={**os.environ, "DATABASE_URL": url, **env},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(engine: Engine, key: str) -> None:
    for _ in range(200):
        if has(engine, key):
            return
        time.sleep(0.05)
    raise AssertionError(f"{key} never came")


def has(engine: Engine, key: str) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT 1 FROM engine_state WHERE key = :k"), {"k": key}).scalar())


def test_sigterm_lets_the_pass_finish_and_gives_everything_back(
    tmp_path: Path, engine: Engine, database_url: str
) -> None:
    with started(tmp_path, database_url, 0.5) as process:
        until(engine, "began")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert has(engine, "ended")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM worker_heartbeats")).scalar() == 0
        held = "SELECT count(*) FROM leases WHERE expires_at > clock_timestamp()"
        assert connection.execute(text(held)).scalar() == 0


def test_it_shows_by_a_file_that_the_database_has_its_heartbeat(
    tmp_path: Path, engine: Engine, database_url: str
) -> None:
    alive = tmp_path / "alive"
    with started(tmp_path, database_url, 0, WORKER_ALIVE_FILE=str(alive)) as process:
        until(engine, "began")
        for _ in range(200):
            if alive.exists():
                break
            time.sleep(0.05)
        assert alive.exists()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM worker_heartbeats")).scalar() == 1
        assert process.poll() is None


def test_a_file_that_cannot_be_written_ends_no_worker(tmp_path: Path, engine: Engine, database_url: str) -> None:
    with started(tmp_path, database_url, 0, WORKER_ALIVE_FILE=str(tmp_path / "none" / "alive")) as process:
        assert process.stderr
        patience = threading.Timer(20, process.kill)
        patience.start()
        said = any("WORKER_ALIVE_FILE cannot be written" in line for line in process.stderr)
        patience.cancel()
        assert said
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_second_signal_ends_at_once(tmp_path: Path, engine: Engine, database_url: str) -> None:
    with started(tmp_path, database_url, 60) as process:
        until(engine, "began")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
    assert not has(engine, "ended")


def test_a_wrong_variable_is_exit_code_2_and_one_line_that_names_it(tmp_path: Path) -> None:
    with started(tmp_path, "postgresql://nobody@127.0.0.1:1/none", 0, SCORE_INTERVAL_SECONDS="often") as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1].startswith("test worker: wrong configuration: SCORE_INTERVAL_SECONDS: ")


@pytest.mark.parametrize("missing", ["server", "schema"])
def test_without_a_usable_database_it_waits_and_says_so(tmp_path: Path, empty_database_url: str, missing: str) -> None:
    url = empty_database_url if missing == "schema" else "postgresql://nobody@127.0.0.1:1/none"
    expected = "coordinator-node migrate" if missing == "schema" else "the database does not answer"
    with started(tmp_path, url, 0) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert expected in line
    assert process.returncode == 0
