"""The feed worker: brings market data into the database."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import engine_from
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.feeds import create_default_registry
from coordinator_node.feeds.errors import FeedError
from coordinator_node.runtime.worker import Worker, run_worker
from coordinator_node.services.feed_data.service import IDLE_SECONDS, FeedService, lease_name


def build(settings: Settings) -> tuple[Engine, Callable[[Worker], Awaitable[None]]]:
    """The database and the body; refuses at start a source that does not exist or cannot work as it is set."""
    try:
        feed = create_default_registry().create(settings.feed_source, settings.feed_options)
    except (FeedError, ValueError, KeyError) as error:
        raise ConfigurationError(f"FEED_SOURCE={settings.feed_source}: {error}") from error

    async def body(worker: Worker) -> None:
        lease = worker.lease(lease_name(settings))
        service = FeedService(worker.engine, feed, settings, lease, worker.clock, worker.wake.set, worker.background)
        try:
            await worker.loop(service.step, IDLE_SECONDS)
        finally:
            await service.close()

    return engine_from(settings, "feed-worker"), body


def main() -> int:
    """Run until SIGTERM."""
    return run_worker("feed", build)


if __name__ == "__main__":
    sys.exit(main())
