"""How fast predictions are scored and counted, beside histories of several lengths. Run by `make bench-score`.

For each length, on a database of its own: the floor (the same rows claimed, COPYed and updated, without any scoring),
then one score worker from the first prediction claimed to the last score stored, then a snapshot cycle over these, and
then later cycles of one prediction a model, from the claim to the leaderboard. The floor and the worker are processes
of their own; `peak` is the largest resident size of the latter.

A later cycle measures windows that are as long as the history makes them, at most 5,000 observations a model, so that a
part of what it takes longer beside more rows is more metrics. `alike` is the same cycle with windows of ALIKE
observations everywhere: what is left between its lines is the history itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from score_history import MODELS, ScoreHistory
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import make_engine
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.db.tables import LeaseRow
from coordinator_node.entities.ids import new_id
from coordinator_node.local.postgres import running_postgres
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.snapshot import observations
from coordinator_node.workers import score_worker

HISTORIES = (0, 100_000, 1_000_000)
DUE_SLOTS = 1000
LATER_CYCLES = 9
ALIKE = 1000
FLOOR_BATCH = 2000

TARGETS = "targets: 8,000/s, 0.40 of the floor, 0.300 s a later cycle, 300 MB, 1.20 times as slow beside a million"


def sign_times_profit(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """What a simple operator's scoring function does."""
    profit = ground_truth["profit"]
    return {"value": profit if prediction["value"] > 0 else -profit, "actual_return": profit}


def main() -> None:
    """Measure every history, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, nargs="+", default=HISTORIES, help="scored rows beside the new ones")
    parser.add_argument("--due-slots", type=int, default=DUE_SLOTS, help=f"slots of {MODELS} predictions to score")
    parser.add_argument("--role", choices=sorted(ROLES), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        print(json.dumps(ROLES[given.role](make_engine(given.url, given.role), given.first, given.due_slots)))
    else:
        report([measure(history, given.due_slots) for history in given.histories])


def measure(history: int, due_slots: int) -> dict[str, float]:
    """The figures beside one history, on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        Path(folder).chmod(0o755)
        with running_postgres(Path(folder) / "postgres") as url:
            engine = make_engine(url, "bench")
            migrate_engine(engine)
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("ALTER SYSTEM SET autovacuum = off"))
                connection.execute(text("SELECT pg_reload_conf()"))
            rows = ScoreHistory(engine)
            rows.add_models()
            first = history // MODELS
            rows.add_scored(first)
            figures: dict[str, float] = {"history": history}
            for role in ("floor", "worker"):
                rows.add_due(first, due_slots)
                rows.settle()
                figures |= run(role, url, first, due_slots)
                first += due_slots
            engine.dispose()
    print(json.dumps(figures), file=sys.stderr)
    return figures


def run(role: str, url: str, first: int, due_slots: int) -> dict[str, float]:
    """What one measured process found."""
    arguments = ["--role", role, "--url", url, "--first", str(first), "--due-slots", str(due_slots)]
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as the workers set it
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environ
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def floor(engine: Engine, first: int, due_slots: int) -> dict[str, float]:
    """Claim, COPY and update the due rows in batches, and nothing else."""
    now = ScoreHistory(engine).resolved_at(first + due_slots)
    connection = engine.raw_connection()
    begun = time.perf_counter()
    while _floor_batch(connection.driver_connection, now):
        connection.commit()
    seconds = time.perf_counter() - begun
    return {"floor_rate": due_slots * MODELS / seconds}


def _floor_batch(connection: Any, now: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM predictions WHERE status = 'PENDING' AND COALESCE(next_attempt_at, resolvable_at) <= %s"
            " ORDER BY COALESCE(next_attempt_at, resolvable_at) LIMIT %s FOR UPDATE SKIP LOCKED",
            (now, FLOOR_BATCH),
        )
        ids = [row[0] for row in cursor.fetchall()]
        columns = "id, prediction_id, result_jsonb, success, scored_at, generation, snapshot_state"
        with cursor.copy(f"COPY scores ({columns}) FROM STDIN") as copy:
            for prediction_id in ids:
                copy.write_row((new_id(), prediction_id, '{"value": 0.5}', True, now, 1, "COUNTED"))
        cursor.execute("UPDATE predictions SET status = 'SCORED' WHERE id = ANY(%s)", (ids,))
    return len(ids)


def worker(engine: Engine, first: int, due_slots: int) -> dict[str, float]:
    """Score what is due, count it, then run later cycles."""
    config, settings = CrunchConfig(scoring_function=sign_times_profit), load_settings({"FEED_SOURCE": "simulated"})
    rows = ScoreHistory(engine)
    score = score_worker.score_stage(engine, config, settings)
    snapshots = score_worker.snapshot.SnapshotStage(engine, config, settings)
    with Session(engine) as session:
        session.add(LeaseRow(name="bench", holder="bench", epoch=1, acquired_at=rows.start, expires_at=rows.start))
        session.commit()
    fence = LeaseFence("bench", 1)
    now = rows.resolved_at(first + due_slots - 1)
    scoring = drained(lambda: score.run_once(now))
    first_cycle = drained(lambda: snapshots.run_once(now, fence))
    later = later_cycles(rows, score, lambda at: snapshots.run_once(at, fence), first + due_slots)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    observations.NEWEST_OBSERVATIONS = min(ALIKE, due_slots)
    shorter = score_worker.snapshot.SnapshotStage(engine, config, settings)
    shorter.run_once(now, fence)
    alike = later_cycles(rows, score, lambda at: shorter.run_once(at, fence), first + due_slots + LATER_CYCLES)
    stored = check(engine)
    return {
        "rate": due_slots * MODELS / scoring,
        "first_cycle": first_cycle,
        "later_cycle": statistics.median(later),
        "slowest_later_cycle": max(later),
        "alike": statistics.median(alike),
        "peak_mb": peak_mb,
        "stored": stored,
    }


def later_cycles(
    rows: ScoreHistory, score: score_worker.ScoreStage, count: Callable[[datetime], Any], first: int
) -> list[float]:
    """The seconds of each of LATER_CYCLES cycles over one slot, from slot `first` on."""
    seconds = []
    for slot in range(first, first + LATER_CYCLES):
        rows.add_due(slot, 1)
        moment = rows.resolved_at(slot)
        seconds.append(drained(lambda at=moment: score.run_once(at)) + drained(lambda at=moment: count(at)))
    return seconds


def drained(step: Callable[[], Any]) -> float:
    """The seconds until a stage says that there is no more."""
    begun = time.perf_counter()
    while step().again:
        pass
    return time.perf_counter() - begun


def check(engine: Engine) -> int:
    """How many scores the worker stored; a wrong number makes every figure worthless."""
    with engine.connect() as connection:
        stored: int = connection.execute(text("SELECT count(*) FROM scores WHERE length(id) = 32")).scalar_one()
        left = connection.execute(text("SELECT count(*) FROM predictions WHERE status = 'PENDING'")).scalar_one()
    if left:
        raise RuntimeError(f"{left} predictions were left")
    return stored


ROLES = {"floor": floor, "worker": worker}


def report(measured: list[dict[str, float]]) -> None:
    """Print a line for each history, and the slowdown from the first to the last."""
    print(
        f"{'scored rows':>12} {'predictions/s':>14} {'floor/s':>9} {'ratio':>6} {'first cycle':>12} {'later cycle':>12}"
        f" {'slowest':>8} {'alike':>8} {'peak MB':>8}"
    )
    for row in measured:
        print(
            f"{row['history']:>12,} {row['rate']:>14,.0f} {row['floor_rate']:>9,.0f}"
            f" {row['rate'] / row['floor_rate']:>6.2f} {row['first_cycle']:>10.3f} s {row['later_cycle']:>10.3f} s"
            f" {row['slowest_later_cycle']:>6.3f} s {row['alike']:>6.3f} s {row['peak_mb']:>8.0f}"
        )
    none, most = measured[0], measured[-1]
    print(
        f"beside {most['history']:,} rows: {none['rate'] / most['rate']:.2f} times as slow,"
        f" a later cycle {most['later_cycle'] / none['later_cycle']:.2f} times,"
        f" with windows alike {most['alike'] / none['alike']:.2f} times"
    )
    print(TARGETS)


if __name__ == "__main__":
    main()
