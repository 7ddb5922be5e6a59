"""A worker process from its start to its end: settings, signals, database, heartbeat, leases, and its body."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any
from wsgiref.simple_server import WSGIServer

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.clock import WorkerClock
from coordinator_node.runtime.heartbeat import BEAT_SECONDS, Heartbeat
from coordinator_node.runtime.leases import RENEW_SECONDS, Lease, LeaseGroup
from coordinator_node.runtime.logging import configure_logging, get_logger
from coordinator_node.runtime.loop import Step, pause, run_loop, wait_for
from coordinator_node.runtime.metrics import measured, serve_metrics
from coordinator_node.runtime.notify import listen

log = get_logger(__name__)

# What a worker takes to end after SIGTERM, so that who sent it need not kill it after ten.
DRAIN_SECONDS = 9.0


class Worker:
    """What a worker's body works with. `stop` is set when it shall end, `wake` when there may be work."""

    def __init__(self, role: str, settings: Settings, engine: Engine, clock: WorkerClock | None = None) -> None:
        self.role = role
        self.settings = settings
        self.engine = engine
        self.clock = clock or WorkerClock()
        self.heartbeat = Heartbeat(engine, role, self.clock)
        self.stop = asyncio.Event()
        self.wake = asyncio.Event()
        self._leases: list[Lease | LeaseGroup] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics_server: WSGIServer | None = None

    def lease(self, name: str, wanted: Callable[[], bool] = lambda: True) -> Lease:
        """A lease that is kept from now on until the worker ends, but left to others while it is not `wanted`.

        `wanted` may ask the database; it is called in a thread.
        """
        lease = Lease(self.engine, name, self.heartbeat.worker_id)
        self._leases.append(lease)
        self.background(self._keep(lease, wanted))
        return lease

    def lease_group(self, names: tuple[str, ...]) -> LeaseGroup:
        """Leases that the body itself takes and renews; what it holds is released when the worker ends."""
        group = LeaseGroup(self.engine, names, self.heartbeat.worker_id)
        self._leases.append(group)
        return group

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the body until the worker ends; its failure ends the worker."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._background_done)
        self._tasks.append(task)

    async def loop(
        self,
        step: Step,
        interval_seconds: float,
        channels: tuple[str, ...] = (),
        wake: asyncio.Event | None = None,
        stage: str | None = None,
    ) -> None:
        """Run passes until the worker is to stop, woken by the channels.

        `stage` is what its passes are counted as, the worker's role where it is left out.
        A body that runs several loops gives each but one its own `wake`, because a loop clears its event.
        """
        wake = wake or self.wake
        if channels:
            self.background(listen(self.engine, channels, wake))
        await run_loop(
            measured(stage or self.role, step),
            stop=self.stop,
            wake=wake,
            interval_seconds=interval_seconds,
            report=self.heartbeat.report,
        )

    async def run(self, body: Callable[[Worker], Awaitable[None]], *, without_database: bool = False) -> None:
        """Run the body with a heartbeat beside it, then give everything back.

        The database is waited for first, unless the body can do something useful without it.
        """
        self._install_signals()
        if not without_database:
            await self._wait_for_database()
        self._serve_metrics()
        self.background(self._beat())
        try:
            if not self.stop.is_set():
                log.info("worker started", worker_id=self.heartbeat.worker_id)
                await body(self)
        finally:
            await self._end()
        for task in self._tasks:
            if task.done() and not task.cancelled() and (failure := task.exception()):
                raise failure

    def _serve_metrics(self) -> None:
        """Serve this worker's own figures where a port is set for them; elsewhere the heartbeat carries them."""
        port = self.settings.worker_metrics_port
        if port is None:
            return
        try:
            self._metrics_server = serve_metrics(self.settings.report_api_host, port)
        except OSError as error:
            log.warning(
                "WORKER_METRICS_PORT cannot be had; the report API shows this worker's metrics instead",
                port=port,
                reason=error.strerror or str(error),
            )
        else:
            self.heartbeat.carries_metrics = False

    def _background_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            self.stop.set()

    async def _keep(self, lease: Lease, wanted: Callable[[], bool]) -> None:
        while True:
            had = lease.held
            with contextlib.suppress(DBAPIError):
                await asyncio.to_thread(lambda: lease.keep() if wanted() else lease.release())
            if lease.held != had:
                log.info("lease taken" if lease.held else "lease lost", lease=lease.name)
                self.wake.set()
            await asyncio.sleep(RENEW_SECONDS if lease.held else RENEW_SECONDS / 2)

    async def _beat(self) -> None:
        while True:
            asked_at = self.clock()
            with contextlib.suppress(DBAPIError):
                self.clock.compare(asked_at, await asyncio.to_thread(self.heartbeat.beat))
                self._note_beat()
            await asyncio.sleep(BEAT_SECONDS)

    def _note_beat(self) -> None:
        """Show those who look after the process, and cannot ask the database, that a heartbeat arrived there."""
        file = self.settings.worker_alive_file
        if file is not None:
            try:
                file.touch()
            except OSError as error:
                log.warning("WORKER_ALIVE_FILE cannot be written", file=str(file), reason=error.strerror or str(error))

    async def _wait_for_database(self) -> None:
        failures = 0
        while not self.stop.is_set():
            try:
                await asyncio.to_thread(self._look_at_database)
                return
            except ProgrammingError:
                problem = "the database has no schema of this version yet: run `coordinator-node migrate`"
            except OperationalError as error:
                problem = f"the database does not answer: {str(error.orig).strip().splitlines()[0]}"
            failures += 1
            log.warning(problem, failures=failures)
            await wait_for(self.stop, pause(min(failures, 3)))

    def _look_at_database(self) -> None:
        asked_at = self.clock()
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1 FROM worker_heartbeats, leases LIMIT 1"))
            self.clock.compare(asked_at, connection.execute(text("SELECT clock_timestamp()")).scalar_one())

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.stop.is_set():
            log.warning("second signal: ending at once", signal=name)
            os._exit(128 + number)
        log.info("draining; a second signal ends at once", signal=name, seconds=DRAIN_SECONDS)
        self.stop.set()
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._overdue)

    def _overdue(self) -> None:
        log.error("did not drain in time; open transactions are rolled back", seconds=DRAIN_SECONDS)
        os._exit(1)

    async def _end(self) -> None:
        self.stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(DBAPIError):
            for lease in self._leases:
                await asyncio.to_thread(lease.release)
            await asyncio.to_thread(self.heartbeat.remove)
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.shutdown)
            self._metrics_server.server_close()
        self.engine.dispose()
        log.info("worker ended")


def run_worker(
    role: str,
    build: Callable[[Settings], tuple[Engine, Callable[[Worker], Awaitable[None]]]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    *,
    clock: WorkerClock | None = None,
    without_database: bool = False,
) -> int:
    """Run one worker in the foreground.

    `build` makes the engine and the body from the settings, and raises ConfigurationError where they cannot work.
    `loop_factory` makes the event loop; None is asyncio's own. `clock` is the worker's, for a body that takes it before
    there is a worker; None makes one. `without_database` lets the body begin before the
    database answers.

    Returns:
        The exit code: 0 ended as asked, 1 failed, 2 wrong configuration; one line on stderr says why.
    """
    try:
        settings = load_settings()
        configure_logging(settings, role)
        engine, body = build(settings)
        worker = partial(Worker, role, settings, engine, clock)
        asyncio.run(_run(worker, body, without_database), loop_factory=loop_factory)
    except ConfigurationError as error:
        sys.stderr.write(f"{role} worker: wrong configuration: {error}\n")
        return 2
    except Exception as error:  # the process's last resort: say why in one line beside the traceback in the log
        log.exception("worker failed")
        sys.stderr.write(f"{role} worker: failed: {type(error).__name__}: {error}\n")
        return 1
    return 0


async def _run(
    make_worker: Callable[[], Worker],
    body: Callable[[Worker], Awaitable[None]],
    without_database: bool,
) -> None:
    # Made inside the loop, because its events belong to one.
    await make_worker().run(body, without_database=without_database)
