"""The checkpoint worker: makes the emission of each period that has ended."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from coordinator_node.config.settings import Settings
from coordinator_node.config_loader import load_config
from coordinator_node.db.engine import engine_from
from coordinator_node.runtime.loop import under_lease
from coordinator_node.runtime.notify import SNAPSHOTS
from coordinator_node.runtime.worker import Worker, run_worker
from coordinator_node.services.checkpoint import LEASE_NAME, CheckpointStage
from coordinator_node.services.checks.startup import warn_at_start

POLL_SECONDS = 1.0


def build(settings: Settings) -> tuple[Engine, Callable[[Worker], Awaitable[None]]]:
    """The database and the body; refuses at start what could never be ranked."""
    config = load_config()
    engine = engine_from(settings, "checkpoint-worker")
    stage = CheckpointStage(engine, config, settings)
    warn_at_start("checkpoint", settings, config)

    async def body(worker: Worker) -> None:
        lease = worker.lease(LEASE_NAME)
        await worker.loop(under_lease(lease, worker.clock, stage.run_once), POLL_SECONDS, (SNAPSHOTS,))

    return engine, body


def main() -> int:
    """Run until SIGTERM."""
    return run_worker("checkpoint", build)


if __name__ == "__main__":
    sys.exit(main())
