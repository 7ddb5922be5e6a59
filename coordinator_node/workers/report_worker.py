"""The report worker: the HTTP API over what the other workers wrote."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import uvloop
from sqlalchemy import Engine

from coordinator_node.api.app import create_app
from coordinator_node.api.server import listen_on, serve
from coordinator_node.config.settings import Settings
from coordinator_node.config_loader import load_config
from coordinator_node.db.engine import engine_from, replica_from
from coordinator_node.entities.times import utc_now
from coordinator_node.runtime.clock import WorkerClock
from coordinator_node.runtime.worker import Worker, run_worker
from coordinator_node.services.checks.findings import warn_of
from coordinator_node.services.checks.variables import unknown_variables


def build(
    settings: Settings, clock: Callable[[], datetime] = utc_now
) -> tuple[Engine, Callable[[Worker], Awaitable[None]]]:
    """The worker's engine and body; the port is taken here, so that a taken one is said before anything starts.

    `clock` is the worker's, by which rounds are queued and their truth is given.
    """
    warn_of(unknown_variables(os.environ))
    engine = engine_from(settings, "report-worker")
    replica = replica_from(settings, "report-worker")
    app = create_app(settings, engine, load_config(), clock, replica=replica)
    listener = listen_on(settings.report_api_host, settings.report_api_port)

    async def body(worker: Worker) -> None:
        # Its own /metrics shows them; in its row they would be counted a second time, by every other report worker too.
        worker.heartbeat.carries_metrics = False
        try:
            await serve(app, listener, worker.stop)
        finally:
            if replica is not None:
                replica.dispose()

    return engine, body


def main() -> int:
    """Run it in the foreground; returns the exit code."""
    clock = WorkerClock()
    return run_worker("report", partial(build, clock=clock), uvloop.new_event_loop, clock=clock, without_database=True)


if __name__ == "__main__":
    sys.exit(main())
