"""The score worker: scores predictions, and its leader makes the snapshots and the leaderboard.

While no checkpoint worker is alive, it makes the checkpoints too, as deployments without one expect.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.config_loader import load_config
from coordinator_node.db.engine import engine_from
from coordinator_node.runtime.heartbeat import any_alive
from coordinator_node.runtime.loop import in_thread, under_lease
from coordinator_node.runtime.notify import FEED_RECORDS
from coordinator_node.runtime.worker import Worker, run_worker
from coordinator_node.services import checkpoint, snapshot
from coordinator_node.services.checks.startup import warn_at_start
from coordinator_node.services.score import score_stage

POLL_SECONDS = 0.5
CHECKPOINT_POLL_SECONDS = 1.0


def build(settings: Settings) -> tuple[Engine, Callable[[Worker], Awaitable[None]]]:
    """The database and the body; refuses at start what could never be scored or ranked, and warns of mistakes."""
    config = load_config()
    engine = engine_from(settings, "score-worker")
    score = score_stage(engine, config, settings)
    snapshots = snapshot.SnapshotStage(engine, config, settings)
    checkpoints = checkpoint.CheckpointStage(engine, config, settings)
    warn_at_start("score", settings, config)

    def no_checkpoint_worker() -> bool:
        with Session(engine) as session:
            return not any_alive(session, "checkpoint")

    async def body(worker: Worker) -> None:
        leader = worker.lease(snapshot.LEASE_NAME)
        stand_in = worker.lease(checkpoint.LEASE_NAME, wanted=no_checkpoint_worker)
        await asyncio.gather(
            worker.loop(in_thread(lambda: score.run_once(worker.clock())), POLL_SECONDS, (FEED_RECORDS,)),
            worker.loop(
                under_lease(leader, worker.clock, snapshots.run_once),
                settings.score_cycle_seconds,
                wake=asyncio.Event(),
                stage="snapshot",
            ),
            worker.loop(
                under_lease(stand_in, worker.clock, checkpoints.run_once),
                CHECKPOINT_POLL_SECONDS,
                wake=asyncio.Event(),
                stage="checkpoint",
            ),
        )

    return engine, body


def main() -> int:
    """Run until SIGTERM."""
    return run_worker("score", build)


if __name__ == "__main__":
    sys.exit(main())
