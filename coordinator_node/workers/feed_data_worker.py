"""The feed worker: brings market data into the database, and history into files when somebody asked for it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import engine_from
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.feeds import create_default_registry
from coordinator_node.feeds.computed import ComputedFeed
from coordinator_node.feeds.errors import FeedError
from coordinator_node.runtime.worker import Worker, run_worker
from coordinator_node.services.backfill import jobs, runner
from coordinator_node.services.backfill.sources import source_maker
from coordinator_node.services.checks.feed import check_feed
from coordinator_node.services.checks.findings import warn_of
from coordinator_node.services.checks.variables import unknown_variables
from coordinator_node.services.feed_data.service import IDLE_SECONDS, FeedService, lease_name


def build(settings: Settings) -> tuple[Engine, Callable[[Worker], Awaitable[None]]]:
    """The database and the body; refuses at start a source that does not exist or cannot work as it is set."""
    try:
        feed = create_default_registry().create(settings.feed_source, settings.feed_options)
    except (FeedError, ValueError, KeyError) as error:
        raise ConfigurationError(f"FEED_SOURCE={settings.feed_source}: {error}") from error
    warn_of([*unknown_variables(os.environ), *check_feed(feed, settings)])
    engine = engine_from(settings, "feed-worker")

    async def body(worker: Worker) -> None:
        if isinstance(feed, ComputedFeed):
            feed.follow(worker.clock)
        lease = worker.lease(lease_name(settings))
        service = FeedService(
            engine, feed, settings, lease, worker.clock, worker.wake.set, worker.background, worker.stop
        )
        # Only while there is a job, so that whoever asks for one at a terminal may run it there.
        backfilling = worker.lease(jobs.LEASE_NAME, wanted=lambda: jobs.any_open(engine))
        backfill = runner.BackfillRunner(engine, settings, backfilling, worker.clock, source_maker(settings, feed))
        try:
            await asyncio.gather(
                worker.loop(service.step, IDLE_SECONDS),
                worker.loop(backfill.step, runner.IDLE_SECONDS, wake=asyncio.Event(), stage="backfill"),
            )
        finally:
            await backfill.close()
            await service.close()

    return engine, body


def main() -> int:
    """Run until SIGTERM."""
    return run_worker("feed", build)


if __name__ == "__main__":
    sys.exit(main())
