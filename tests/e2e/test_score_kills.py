"""Two score workers drain 20,000 predictions while one or the other is killed with -9 at 20 random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from builders import one
from invariants import broken_rules, check_leaderboard_is_the_naive_one
from score_history import HORIZON_SECONDS, MODELS, SLOT_SECONDS, ScoreHistory
from sqlalchemy import Engine, text

from coordinator_node.entities.times import utc_now

PREDICTIONS = 20_000
KILLS = 20
SEED = 5
LONGEST_LIFE_SECONDS = 0.6
"""Between two kills; of the two workers, each lives twice as long on average."""

PATIENCE_SECONDS = 60.0

# A prediction takes a millisecond while there are kills to come, so that these fall into the work.
SCORING = """
import os, time

def score(prediction, ground_truth):
    if not os.path.exists({flag!r}):
        time.sleep(0.001)
    profit = ground_truth["profit"]
    return {{"value": profit if prediction["value"] > 0 else -profit}}
"""
PENDING = "SELECT count(*) FROM predictions WHERE status = 'PENDING'"
ALL_COUNTED = """
    SELECT NOT EXISTS (SELECT FROM predictions WHERE status = 'PENDING')
       AND NOT EXISTS (SELECT FROM scores WHERE snapshot_state = 'PENDING')
       AND (SELECT max(created_at) FROM leaderboards) >= (SELECT max(created_at) FROM snapshots)
"""
# A killed holder renews nothing; this is the six seconds that it takes until somebody else may lead.
FREE_LEASES_OF_THE_DEAD = text(
    """
    UPDATE leases SET expires_at = clock_timestamp()
    WHERE expires_at > clock_timestamp()
      AND holder NOT IN (SELECT worker_id FROM worker_heartbeats WHERE pid = :alive)
    RETURNING name
    """
)


class Workers:
    """Score workers, started and killed by process id."""

    def __init__(self, forks: subprocess.Popen[str], log: Path) -> None:
        self._forks = forks
        self._log = log

    def start(self) -> int:
        return self._asked("start")

    def killed(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        assert self._asked(f"wait {pid}") == -signal.SIGKILL, self.said()

    def drained(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        assert self._asked(f"wait {pid}") == 0, self.said()

    def said(self) -> str:
        return self._log.read_text()[-8000:]

    def _asked(self, question: str) -> int:
        assert self._forks.stdin
        assert self._forks.stdout
        self._forks.stdin.write(f"{question}\n")
        self._forks.stdin.flush()
        return int(self._forks.stdout.readline())


@contextmanager
def score_workers(folder: Path, url: str, **environ: str) -> Iterator[Workers]:
    """What starts workers; those that still run at the end are killed with it."""
    log = folder / "workers.log"
    with log.open("w") as written:
        forks = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("score_worker_forks.py"))],
            cwd=folder,
            env={**os.environ, "DATABASE_URL": url, "FEED_SOURCE": "simulated", "PYTHONPATH": str(folder), **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
            start_new_session=True,
        )
        try:
            yield Workers(forks, log)
        finally:
            os.killpg(forks.pid, signal.SIGKILL)
            forks.communicate()


def test_kill_9_of_score_workers_while_predictions_drain(database_url: str, engine: Engine, tmp_path: Path) -> None:
    slots = PREDICTIONS // MODELS
    ended = utc_now().replace(microsecond=0) - timedelta(seconds=HORIZON_SECONDS)
    history = ScoreHistory(engine, ended - timedelta(seconds=slots * SLOT_SECONDS))
    history.add_models()
    history.add_due(0, slots)
    history.settle()
    kills_are_over = tmp_path / "kills_are_over"
    (tmp_path / "slow_scoring.py").write_text(SCORING.format(flag=str(kills_are_over)))
    environ = {"SCORING_FUNCTION": "slow_scoring:score", "SCORE_INTERVAL_SECONDS": "0.1", "OPENBLAS_NUM_THREADS": "1"}
    chance = random.Random(SEED)
    with score_workers(tmp_path, database_url, **environ) as workers:
        pids = [workers.start(), workers.start()]
        leaders_killed = 0
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, LONGEST_LIFE_SECONDS))
            chance.shuffle(pids)
            workers.killed(pids[0])
            with engine.begin() as connection:
                freed = connection.execute(FREE_LEASES_OF_THE_DEAD, {"alive": pids[1]}).scalars().all()
            leaders_killed += "score-leader" in freed
            pids[0] = workers.start()
        assert 0 < one(engine, PENDING) < PREDICTIONS, workers.said()
        assert leaders_killed > 0
        kills_are_over.touch()
        wait_until_all_is_counted(engine, workers)
        for pid in pids:
            workers.drained(pid)
    assert one(engine, "SELECT count(*) FROM scores") == PREDICTIONS
    assert one(engine, "SELECT sum(prediction_count) FROM snapshots") == PREDICTIONS
    assert broken_rules(engine) == {}
    check_leaderboard_is_the_naive_one(engine)


def wait_until_all_is_counted(engine: Engine, workers: Workers) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not one(engine, ALL_COUNTED):
        assert time.monotonic() < give_up, workers.said()
        time.sleep(0.2)
