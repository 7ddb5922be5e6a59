"""The whole engine on one machine: Postgres, the five workers, an orchestrator and its models, under one supervisor."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coordinator_node.local.postgres import EmbeddedPostgres
from coordinator_node.local.process import Program
from coordinator_node.local.supervisor import Supervisor

HOST = "127.0.0.1"
WORKERS = ("feed", "predict", "score", "checkpoint", "report")
MODULES = {"feed": "feed_data_worker", **{name: f"{name}_worker" for name in WORKERS[1:]}}
# Nothing more is asked of models first; what they said is scored and reported as long as possible.
DRAIN_ORDER = (("predict",), ("feed", "orchestrator"), ("score",), ("checkpoint", "report"))
MIGRATE_SECONDS = 60.0


class StackError(RuntimeError):
    """The stack cannot run; the message says why and what to do."""


@dataclass(frozen=True)
class StackPlan:
    """What is run.

    Attributes:
        workspace: the folder that holds config/ and api/; the workers run in it.
        submissions: the folder of the models' folders.
        state: the folder of what is kept between runs.
        environment: the workers' variables; None takes one away that the terminal has.
        crunch_id: the competition's identifier.
        port: the report API's port on this machine.
    """

    workspace: Path
    submissions: Path
    state: Path
    environment: Mapping[str, str | None]
    crunch_id: str
    port: int

    @property
    def url(self) -> str:
        """Where the report API answers."""
        return f"http://{HOST}:{self.port}"


def check_port(port: int) -> None:
    """Find out before anything is started whether the API's port is free.

    Raises:
        StackError: it is taken; the message names it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StackError(
                f"port {port} on {HOST} cannot be used ({error.strerror}); end what holds it, or choose another with"
                f" --port"
            ) from None


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class LocalStack:
    """Starts and drains the programs of a plan."""

    def __init__(self, plan: StackPlan, postgres: EmbeddedPostgres, supervisor: Supervisor) -> None:
        self.plan = plan
        self.postgres = postgres
        self.supervisor = supervisor
        self._orchestrator_port = free_port()

    async def start(self) -> None:
        """Start everything in order: the database, its schema, then all else at once.

        Raises:
            StackError: the schema could not be brought up to date, or a program cannot be run.
        """
        await self.supervisor.start(self.database())
        await asyncio.to_thread(self.postgres.wait_until_ready)
        await self.supervisor.start(self.migration())
        code = (await asyncio.wait_for(self.supervisor.wait_for("migrate"), MIGRATE_SECONDS))["migrate"]
        if code:
            raise StackError(f"the database could not be migrated (exit code {code}): its lines above say why")
        for program in self.programs():
            await self.supervisor.start(program)

    async def drain(self) -> None:
        """End everything but the database, so that each stage finishes what it began."""
        await self.supervisor.stop(*DRAIN_ORDER)

    def database(self) -> Program:
        """The database's server, which runs before all else."""
        return self.postgres.program()

    def migration(self) -> Program:
        """What brings the schema up to date, and ends."""
        return self._python("migrate", "coordinator_node.db.init_db", restart=False)

    def programs(self) -> list[Program]:
        """What runs beside the database, in the order in which it is started: the orchestrator and the workers."""
        workers = [self._python(name, f"coordinator_node.workers.{MODULES[name]}") for name in WORKERS]
        return [self._orchestrator(), *workers]

    def addresses(self) -> dict[str, str]:
        """The variables that say where the parts of this stack are."""
        return {
            "CRUNCH_ID": self.plan.crunch_id,
            "REPORT_API_HOST": HOST,
            "REPORT_API_PORT": str(self.plan.port),
            "MODEL_RUNNER_NODE_HOST": HOST,
            "MODEL_RUNNER_NODE_PORT": str(self._orchestrator_port),
            **self.postgres.environment,
        }

    def _python(self, name: str, module: str, *arguments: str, restart: bool = True) -> Program:
        return Program(
            name=name,
            argv=[sys.executable, "-m", module, *arguments],
            cwd=self.plan.workspace,
            env=self._environment(),
            restart=restart,
        )

    def _orchestrator(self) -> Program:
        arguments = ["--submissions", str(self.plan.submissions), "--host", HOST]
        arguments += ["--port", str(self._orchestrator_port), "--crunch-id", self.plan.crunch_id]
        arguments += ["--cache", str(self.plan.state / "environments")]
        return self._python("orchestrator", "coordinator_node.local.orchestrator", *arguments)

    def _environment(self) -> dict[str, str | None]:
        return {
            "LOG_FORMAT": "text",
            "LOG_LEVEL": "WARNING",
            **self.plan.environment,
            "PYTHONUNBUFFERED": "1",
            **self.addresses(),
        }
