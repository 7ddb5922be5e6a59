"""One submission and the model host that runs it: its state, its port, its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator_node.local.backoff import Backoff
from coordinator_node.local.environments import EnvironmentFailedError, Environments
from coordinator_node.local.output import Output
from coordinator_node.local.process import CannotStartError, ChildProcess, Program, describe_exit
from coordinator_node.local.submissions import Submission

MODEL_HOST = Path(__file__).with_name("model_host.py")
# A host that imports heavy libraries on a busy machine takes its time; one that hangs is started anew.
START_SECONDS = 60.0
STOP_SECONDS = 2.0
HEALTH_CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
)
# The model's code is a stranger's: it gets neither the database nor the engine's keys.
WITHHELD = {
    name: None
    for name in ("DATABASE_URL", "DATABASE_READ_URL", "POSTGRES_HOST", "POSTGRES_PASSWORD", "API_KEY", "PYTH_API_KEY")
}


class ModelState(StrEnum):
    """The protocol's states. A model that starts, or starts again, is RECOVERING until it answers health checks."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    RECOVERING = "RECOVERING"


class HostedModel:
    """Runs a submission's model host from `start` to `stop`, a new port for each start of the process.

    A new port, because a coordinator takes the same address for the same process, and would never set up the new one.
    `announce` is called with the model whenever its state changes. `starts` limits how many hosts start at once: too
    many would hold each other up beyond the time that a start may take.
    """

    def __init__(
        self,
        submission: Submission,
        host: str,
        environments: Environments,
        starts: asyncio.Semaphore,
        output: Output,
        announce: Callable[[HostedModel], None],
    ) -> None:
        self.submission = submission
        self.state = ModelState.RECOVERING
        self.port = 0
        self._host = host
        self._environments = environments
        self._starts = starts
        self._output = output
        self._announce = announce
        self._child: ChildProcess | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The model host's process id, or None while there is none."""
        return self._child.pid if self._child else None

    def describe(self) -> dict[str, Any]:
        """The model as the protocol's events show it. Its port is 0 until it was first started."""
        return {
            "deployment_id": self.submission.deployment_id,
            "model_id": self.submission.model_id,
            "state": self.state.value,
            "ip": self._host,
            "port": self.port,
            "infos": self.submission.infos,
        }

    def start(self) -> None:
        """Begin to run it; returns at once."""
        if self.submission.problem:
            self.say(self.submission.problem, "yellow")
        self._become(ModelState.RECOVERING)
        self._task = asyncio.create_task(self._keep_running())

    def restart(self) -> None:
        """End a running process, which is then started anew on another port; one that is starting is left alone."""
        if self.state is ModelState.RUNNING and self._child is not None:
            self._child.kill()

    async def stop(self, reason: str) -> None:
        """Announce that it is stopped, then end its process; it stays so until `start`."""
        if self.state is not ModelState.STOPPED:
            self.say(f"stopped: {reason}", "yellow")
            self._become(ModelState.STOPPED)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def say(self, text: str, style: str = "") -> None:
        """Print a line about this model."""
        self._output.line(self.submission.name, text, style)

    def _become(self, state: ModelState) -> None:
        self.state = state
        self._announce(self)

    async def _keep_running(self) -> None:
        try:
            python = await self._environments.python_for(self.submission)
        except (EnvironmentFailedError, CannotStartError, OSError) as error:
            self.say(f"stopped: {error}", "bold red")
            self._become(ModelState.STOPPED)
            return
        clock = asyncio.get_running_loop().time
        backoff = Backoff()
        while True:
            started = clock()
            ended = await self._run_once(python)
            pause = backoff.after(clock() - started)
            self.say(f"{ended}; starting it again in {pause:g} s", "yellow")
            self._become(ModelState.RECOVERING)
            await asyncio.sleep(pause)

    async def _run_once(self, python: Path) -> str:
        """Run the process to its end, and end it when cancelled; returns how it ended."""
        child = None
        try:
            async with self._starts:
                self.port = free_port(self._host, other_than=self.port)
                child = self._child = await ChildProcess.start(self._program(python), self._output)
                ready = await _ready(child, self._host, self.port)
            if not ready:
                child.kill()
                return f"did not answer health checks; {describe_exit(await child.wait())}"
            self.say(f"running at {self._host}:{self.port}", "green")
            self._become(ModelState.RUNNING)
            return describe_exit(await child.wait())
        except (CannotStartError, OSError) as error:
            return str(error)
        finally:
            self._child = None
            if child is not None:
                await child.stop()

    def _program(self, python: Path) -> Program:
        # -P keeps the folder of model_host.py, whose neighbours are the engine's, off the model's import path.
        command = [str(python), "-P", str(MODEL_HOST), "--submission", str(self.submission.folder)]
        return Program(
            name=self.submission.name,
            argv=[*command, "--host", self._host, "--port", str(self.port)],
            env={**WITHHELD, "PYTHONUNBUFFERED": "1"},
            stop_seconds=STOP_SECONDS,
        )


def free_port(host: str, *, other_than: int) -> int:
    """A port that nobody listens on now, and not the last one."""
    while True:
        with socket.create_server((host, 0)) as probe:
            port: int = probe.getsockname()[1]
        if port != other_than:
            return port


async def _ready(child: ChildProcess, host: str, port: int) -> bool:
    """Wait until the process serves; False if it ended first, or does not within START_SECONDS."""
    ended = asyncio.create_task(child.wait())
    serving = asyncio.create_task(_serves(host, port))
    try:
        await asyncio.wait({ended, serving}, return_when=asyncio.FIRST_COMPLETED)
        return serving.done() and serving.result()
    finally:
        for task in (ended, serving):
            task.cancel()
        await asyncio.gather(ended, serving, return_exceptions=True)


async def _serves(host: str, port: int) -> bool:
    async with grpc.aio.insecure_channel(f"{host}:{port}", HEALTH_CHANNEL) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with contextlib.suppress(grpc.aio.AioRpcError):
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=START_SECONDS, wait_for_ready=True)
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
    return False
