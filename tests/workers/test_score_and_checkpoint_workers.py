"""The score and checkpoint workers as processes: what they make, who makes checkpoints, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import builders
import pytest
from builders import one
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.entities.times import utc_now

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker in an empty workspace; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(role: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", f"coordinator_node.workers.{role}_worker"],
            env={"PATH": os.environ["PATH"], "DATABASE_URL": database_url, "FEED_SOURCE": "simulated", **environ},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        if process.poll() is not None or time.monotonic() > limit:
            process.kill()
            pytest.fail(f"it did not come to that; the worker said:\n{process.communicate()[0]}")
        time.sleep(0.05)


def drained(process: subprocess.Popen[str]) -> str:
    """What a worker said, once it ended as asked."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=15)[0]
    assert process.returncode == 0, said
    return said


def test_a_score_worker_makes_it_all_until_a_checkpoint_worker_comes(engine: Engine, start: Start) -> None:
    environ = {
        "SCORE_INTERVAL_SECONDS": "0.2",
        "CHECKPOINT_INTERVAL_SECONDS": "1",
        "SCORING_FUNCTION": "coordinator_node.extensions.default_callables:default_score_prediction",
    }
    now = (utc_now() - builders.START).total_seconds()
    with Session(engine) as session:
        builders.ticks(session, {now - 10: 100.0, now - 4: 110.0, now - 2: 120.0})
        model, row = builders.model(session), builders.market_input(session)
        times = {"performed_at": builders.at(now - 8), "resolvable_at": builders.at(now - 3)}
        for n in range(20):
            builders.prediction(session, model.id, row.id, scope_key=f"scope-{n}", **times)
        session.commit()
    score = start("score", **environ)
    wait_until(lambda: one(engine, "SELECT count(*) FROM checkpoints") >= 3, score)
    assert one(engine, "SELECT count(*) FROM scores WHERE snapshot_state = 'COUNTED'") == 20
    assert one(engine, "SELECT count(*) FROM leaderboards") >= 1
    checkpoint = start("checkpoint", **environ)
    holder = "SELECT COALESCE((SELECT holder FROM leases WHERE name = 'checkpoint'), '')"
    wait_until(lambda: one(engine, holder).startswith("checkpoint-"), checkpoint)
    made = one(engine, "SELECT count(*) FROM checkpoints")
    wait_until(lambda: one(engine, "SELECT count(*) FROM checkpoints") > made, checkpoint)
    assert "every prediction will score 0" in drained(score)
    drained(checkpoint)
    assert one(engine, "SELECT count(*) FROM worker_heartbeats") == 0
    assert one(engine, "SELECT count(*) FROM leases WHERE expires_at > clock_timestamp()") == 0


@pytest.mark.parametrize("role", ["score", "checkpoint"])
def test_a_wrong_configuration_is_found_at_start(start: Start, role: str) -> None:
    process = start(role, LEADERBOARD_RANKER="no_such_module:rank")
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 2
    assert f"{role} worker: wrong configuration: LEADERBOARD_RANKER: no_such_module:rank" in said
