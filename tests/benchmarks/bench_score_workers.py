"""How much faster several score workers drain than one, when scoring is what takes the time. Run by `make bench-score`.

Each worker is a process of its own, each prediction takes about two milliseconds of processor time, and the machine's
cores are what there is to share: three workers on two cores can be twice as fast as one, and shall be 1.5 times. It is
measured over a backlog of several claims, and over one that a single claim would hold.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from score_history import MODELS, ScoreHistory
from sqlalchemy import Engine, text

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import make_engine
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.local.postgres import running_postgres
from coordinator_node.services.score import score_stage

BACKLOGS = (6000, 1500)
WORKERS = 3
TARGET = 1.5
STEPS = 30_000
IDLE_SECONDS = 0.02
PENDING = text("SELECT count(*) FROM predictions WHERE status = 'PENDING'")


def slow_score(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """What an operator's function does that is made of Python alone."""
    total = 0
    for step in range(STEPS):
        total += step & 3
    return {"value": ground_truth["profit"] * (1 if prediction["value"] > 0 else -1), "total": total}


def main() -> None:
    """Measure every backlog with one worker and with several, or be one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlogs", type=int, nargs="+", default=BACKLOGS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.url:
        work(given.url)
        return
    print(f"{'predictions':>12} {'1 worker':>12} {f'{WORKERS} workers':>12}  times as fast")
    for backlog in given.backlogs:
        one, several = (measure(backlog, workers) for workers in (1, WORKERS))
        print(f"{backlog:>12,} {backlog / one:>10,.0f}/s {backlog / several:>10,.0f}/s  {one / several:.2f}")
    print(f"target: {TARGET} times, on {os.cpu_count()} cores")


def measure(backlog: int, workers: int) -> float:
    """The seconds in which so many workers drain a backlog, on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        Path(folder).chmod(0o755)
        with running_postgres(Path(folder) / "postgres") as url:
            engine = make_engine(url, "bench")
            migrate_engine(engine)
            rows = ScoreHistory(engine)
            rows.add_models()
            rows.add_due(0, backlog // MODELS)
            rows.settle()
            seconds = drained(url, workers)
            left = pending(engine)
            engine.dispose()
    if left:
        raise RuntimeError(f"{left} predictions were left")
    return seconds


def drained(url: str, workers: int) -> float:
    """Start the workers, let them go at once, and wait for all."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--url", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(workers)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported everything
    begun = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - begun
    if any(codes):
        raise RuntimeError(f"workers ended with {codes}")
    return seconds


def work(url: str) -> None:
    """Score until nothing is pending."""
    engine = make_engine(url, "bench-worker")
    settings = load_settings({"FEED_SOURCE": "simulated"})
    stage = score_stage(engine, CrunchConfig(scoring_function=slow_score), settings)
    now = ScoreHistory(engine).resolved_at(100_000)
    print("ready", flush=True)
    sys.stdin.read()
    while True:
        if stage.run_once(now).idle:
            if not pending(engine):
                return
            time.sleep(IDLE_SECONDS)


def pending(engine: Engine) -> int:
    """How many predictions nobody has scored."""
    with engine.connect() as connection:
        return int(connection.execute(PENDING).scalar_one())


if __name__ == "__main__":
    main()
