"""The predict worker: calls the models."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from coordinator_node.config.settings import Settings
from coordinator_node.config_loader import load_config
from coordinator_node.db.engine import engine_from
from coordinator_node.runtime.notify import FEED_RECORDS, ROUNDS
from coordinator_node.runtime.worker import Worker, run_worker
from coordinator_node.services.predict.service import IDLE_SECONDS, PredictService
from coordinator_node.services.predict.shards import SHARD_NAMES, Shards
from coordinator_node.services.predict.startup import check_predict


def build(settings: Settings) -> tuple[Engine, Callable[[Worker], Awaitable[None]]]:
    """The database and the body; refuses at start what could never be called or scored."""
    config = load_config()
    check_predict(config, settings)

    async def body(worker: Worker) -> None:
        group = worker.lease_group(SHARD_NAMES)
        shards = Shards(worker.engine, group, worker.role, worker.wake.set)
        worker.background(shards.run())
        service = PredictService(
            worker.engine, config, settings, shards, worker.clock, worker.wake.set, worker.background
        )
        service.start()
        try:
            await worker.loop(service.step, IDLE_SECONDS, channels=(FEED_RECORDS, ROUNDS))
        finally:
            await service.close()

    return engine_from(settings, "predict-worker"), body


def main() -> int:
    """Run until SIGTERM."""
    return run_worker("predict", build)


if __name__ == "__main__":
    sys.exit(main())
