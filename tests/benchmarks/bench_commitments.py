"""What committing costs: scoring and counting the same predictions with the Merkle log and without. By `bench-score`.

Each of the runs has a database and a process of its own; they take turns, and the fastest that each kind was at each
stage is compared. The predictions are marked after they were inserted, so the table is packed anew, with the log and
without: else the room that marking leaves would make the score stage's updates cheaper, and the log with them.

With the log, each slot's predictions are committed as their writer does it (which is measured beside it), the score
stage looks whether they were in time, and the cycle hashes every prediction, outcome and snapshot. Without it none of
that is done, all else is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_score import drained, sign_times_profit
from score_history import MODELS, ScoreHistory
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import make_engine
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.db.tables import LeaseRow
from coordinator_node.local.postgres import running_postgres
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.merkle.commitments import commit_predictions
from coordinator_node.services.snapshot import store
from coordinator_node.workers import score_worker

KINDS = ("with", "without")
_WAITING = "SELECT * FROM predictions WHERE status = 'PENDING' ORDER BY slot_id, id"
TARGET = 10.0


def main() -> None:
    """Compare, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--due-slots", type=int, default=1000, help=f"slots of {MODELS} predictions to score")
    parser.add_argument("--runs", type=int, default=3, help="of each kind")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.kind:
        print(json.dumps(measure(given.kind, given.due_slots)))
        return
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(given.runs):
        for kind in KINDS:
            found[kind].append(run(kind, given.due_slots))
    report(found)


def run(kind: str, due_slots: int) -> dict[str, float]:
    """What one measured process found."""
    command = [sys.executable, __file__, "--kind", kind, "--due-slots", str(due_slots)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(kind: str, due_slots: int) -> dict[str, float]:
    """The seconds that scoring, counting and, with the log, committing take."""
    if kind == "without":
        store.write_cycle = lambda *_: None
        store.LeafSources = NoLeaves
        store.canonical_snapshot_hash = lambda _: None
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        Path(folder).chmod(0o755)
        with running_postgres(Path(folder) / "postgres") as url:
            engine = make_engine(url, "bench")
            migrate_engine(engine)
            rows = ScoreHistory(engine)
            rows.add_models()
            rows.add_due(0, due_slots)
            committing = commit_all(engine) if kind == "with" else 0.0
            pack(engine)
            rows.settle()
            figures = score_and_count(engine, rows, due_slots)
            engine.dispose()
    return figures | {"committing": committing}


class NoLeaves:
    """What stands in for the sources of the leaves where there is no log."""

    def __init__(self, *_: Any) -> None: ...

    def counted_by_model(self) -> None: ...


def pack(engine: Engine) -> None:
    """Leave no room in the table of predictions, as where they were inserted as they are."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM FULL predictions"))


def commit_all(engine: Engine) -> float:
    """Commit, by slot, what waits for its score; the seconds that this took, without reading and marking the rows."""
    seconds = 0.0
    with Session(engine) as session:
        found = session.connection().execute(text(_WAITING)).mappings().all()
        # Without the slot, because they are there already and a writer's rows are not.
        given = [{**row, "slot_id": None} for row in found]
        for first in range(0, len(given), MODELS):
            slot = given[first : first + MODELS]
            begun = time.perf_counter()
            committed = commit_predictions(session, slot, slot[0]["performed_at"])
            seconds += time.perf_counter() - begun
            mark(session, committed)
        session.commit()
    return seconds


def mark(session: Session, committed: list[dict[str, Any]]) -> None:
    """Say in the rows where they were committed, as if they had been inserted so."""
    session.connection().execute(
        text(
            "UPDATE predictions SET commitment_id = :commitment, commitment_index = given.place"
            " FROM unnest(CAST(:ids AS text[]), CAST(:places AS int[])) AS given(id, place)"
            " WHERE predictions.id = given.id"
        ),
        {
            "commitment": committed[0]["commitment_id"],
            "ids": [row["id"] for row in committed],
            "places": [row["commitment_index"] for row in committed],
        },
    )


def score_and_count(engine: Engine, rows: ScoreHistory, due_slots: int) -> dict[str, float]:
    """The seconds of the score stage and of the snapshot stage over all that is due, and of their processor."""
    config, settings = CrunchConfig(scoring_function=sign_times_profit), load_settings({"FEED_SOURCE": "simulated"})
    score = score_worker.score_stage(engine, config, settings)
    snapshots = score_worker.snapshot.SnapshotStage(engine, config, settings)
    with Session(engine) as session:
        session.add(LeaseRow(name="bench", holder="bench", epoch=1, acquired_at=rows.start, expires_at=rows.start))
        session.commit()
    now = rows.resolved_at(due_slots - 1)
    worked = time.process_time()
    scoring = drained(lambda: score.run_once(now))
    counting = drained(lambda: snapshots.run_once(now, LeaseFence("bench", 1)))
    return {"scoring": scoring, "counting": counting, "cpu": time.process_time() - worked}


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """Print both kinds, and what the log adds."""
    best = {kind: {name: min(run[name] for run in runs) for name in runs[0]} for kind, runs in found.items()}
    seconds = {kind: run["scoring"] + run["counting"] for kind, run in best.items()}
    for kind in KINDS:
        print(
            f"{kind:>8} the log: {best[kind]['scoring']:.2f} s scoring, {best[kind]['counting']:.2f} s counting,"
            f" together {seconds[kind]:.2f} s, of which {best[kind]['cpu']:.2f} s on the processor"
        )
    added = seconds["with"] / seconds["without"] - 1
    print(f"the log costs {added * 100:.1f} % of scoring and counting; target: under {TARGET:.0f} %")
    print(f"of this process's processor time, {(best['with']['cpu'] / best['without']['cpu'] - 1) * 100:.1f} %")
    print(f"committing the predictions when they are stored took {best['with']['committing']:.2f} s")


if __name__ == "__main__":
    main()
