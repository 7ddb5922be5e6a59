"""A local stack for faults: workers in pairs, each behind a proxy of its own, and waits for what shall come again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TextIO

import psutil
from cut_proxy import CutProxy
from rich.console import Console
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from coordinator_node.db.engine import make_engine
from coordinator_node.local.demo import DemoFeed, demo_plan
from coordinator_node.local.output import Output
from coordinator_node.local.postgres import NAME, PORT, EmbeddedPostgres
from coordinator_node.local.process import Program
from coordinator_node.local.stack import LocalStack, StackPlan, free_port
from coordinator_node.local.supervisor import Supervisor

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 300.0  # for a machine that does much else; the recovery is what is printed
NAMED_SECONDS = 2.0  # what takes longer is named among what the processes say
CHECKPOINT_SECONDS = 20
CHECKPOINT_GRACE_SECONDS = 10

# Those of which a second one takes over what the first holds.
PAIRED = ("feed", "predict", "score")
ENVIRONMENT = {
    # One subject: a slot's answers must arrive within a second, also where several stacks share few cores.
    "FEED_SUBJECTS": "BTC",
    "SCORE_INTERVAL_SECONDS": "2",
    "CHECKPOINT_INTERVAL_SECONDS": str(CHECKPOINT_SECONDS),
    "CHECKPOINT_GRACE_SECONDS": str(CHECKPOINT_GRACE_SECONDS),
}

# What each part does again once a fault is over; :since is when that was. `heartbeats` is counted by process.
WORKING = {
    "feed": "SELECT count(*) > 0 FROM feed_records WHERE ts_ingested > :since AND ts_event > :since",
    "slots": "SELECT count(*) > 0 FROM prediction_slots WHERE status = 'CALLED' AND slot_at > :since",
    "models": """
        SELECT NOT EXISTS (
            SELECT FROM models WHERE presence = 'PRESENT' AND NOT starts_with(models.id, '__ensemble_')
            AND NOT EXISTS (SELECT FROM predictions WHERE model_id = models.id AND performed_at > :since
                            AND status IN ('PENDING', 'SCORED')))
        AND (SELECT count(*) FROM models WHERE presence = 'PRESENT') >= :models
    """,
    "scores": "SELECT count(*) > 0 FROM scores WHERE scored_at > :since",
    "leaderboard": "SELECT count(*) > 0 FROM leaderboards WHERE created_at > :since",
    "checkpoints": """
        SELECT count(*) > 0 FROM checkpoints HAVING max(period_end) > clock_timestamp() - make_interval(secs => :late)
    """,
    "heartbeats": """
        SELECT count(*) >= cardinality(CAST(:pids AS int[])) FROM worker_heartbeats
        WHERE pid = ANY(CAST(:pids AS int[])) AND beat_at > :since
    """,
}
ALL_SHARDS = """
    SELECT count(*) = 12 FROM leases JOIN worker_heartbeats ON worker_id = holder
    WHERE leases.name LIKE 'predict/%' AND expires_at > clock_timestamp() AND pid = :pid
"""
HOLDER_PID = """
    SELECT pid FROM leases JOIN worker_heartbeats ON worker_id = holder
    WHERE starts_with(leases.name, :lease) AND role = :role AND expires_at > clock_timestamp() ORDER BY name LIMIT 1
"""
SETTLED = {
    "no call is open": "SELECT NOT EXISTS (SELECT FROM slot_calls WHERE closed_at IS NULL)",
    "nothing is pending": "SELECT NOT EXISTS (SELECT FROM predictions WHERE status = 'PENDING')",
    "all is counted": """
        SELECT NOT EXISTS (SELECT FROM scores WHERE snapshot_state = 'PENDING')
           AND NOT EXISTS (SELECT FROM predictions WHERE status IN ('FAILED', 'ABSENT') AND snapshot_id IS NULL)
           AND (SELECT max(created_at) FROM leaderboards) >= (SELECT max(created_at) FROM snapshots)
    """,
    "every period that ended has its checkpoint": WORKING["checkpoints"],
}
LATE_SECONDS = CHECKPOINT_SECONDS + CHECKPOINT_GRACE_SECONDS + 5


@dataclass(frozen=True)
class Setting:
    """What a stack is run with.

    Attributes:
        models: how many models there are.
        environment: variables of the workers, beside the demo's.
        preload: variables of each process by its name, Postgres too.
        orchestrator: a script in the place of the orchestrator; it is given the same arguments.
        arguments: what it is given besides.
    """

    models: int = 3
    environment: Mapping[str, str] = field(default_factory=dict)
    preload: Callable[[str], Mapping[str, str]] = lambda _: {}
    orchestrator: Path | None = None
    arguments: tuple[str, ...] = ()


class FaultError(AssertionError):
    """The stack did not do what it should have done; the message says what is missing."""


class ChaosStack(LocalStack):
    """The stack, and questions to its database, which waits for their answer by no proxy."""

    def __init__(self, plan: StackPlan, postgres: EmbeddedPostgres, supervisor: Supervisor, setting: Setting) -> None:
        super().__init__(plan, postgres, supervisor)
        self.setting = setting
        self.proxies: dict[str, CutProxy] = {}
        self.engine: Engine = make_engine(postgres.url, "chaos")

    def database(self) -> Program:
        return self._preloaded(super().database())

    def programs(self) -> list[Program]:
        programs = []
        for program in super().programs():
            programs.append(program)
            if program.name in PAIRED:
                programs.append(replace(program, name=f"{program.name}-2"))
        return [self._disturbable(program) for program in programs]

    def _disturbable(self, program: Program) -> Program:
        environment = {**(program.env or {}), **self.setting.environment}
        if program.name in self.proxies:
            port = self.proxies[program.name].port
            environment["DATABASE_URL"] = f"postgresql+psycopg://{NAME}@127.0.0.1:{port}/{NAME}"
        argv = program.argv
        if program.name == "orchestrator" and self.setting.orchestrator is not None:
            argv = [
                argv[0],
                str(self.setting.orchestrator),
                *argv[3:],
                *self.setting.arguments,
            ]  # instead of -m and the module
        return self._preloaded(replace(program, env=environment, argv=argv))

    def _preloaded(self, program: Program) -> Program:
        # Not by the program's environment: that is its launcher's too, which may be another user's.
        variables = [f"{name}={value}" for name, value in self.setting.preload(program.name).items()]
        return replace(program, argv=["env", *variables, *program.argv]) if variables else program

    @property
    def workers(self) -> list[str]:
        """The names of the worker processes."""
        return list(self.proxies)

    async def holder(self, role: str, lease: str = "") -> str:
        """Which of a role's processes holds a lease whose name begins so, or the first one where none does."""
        query = text(HOLDER_PID)

        def ask() -> int | None:
            with self.engine.connect() as connection:
                return connection.execute(query, {"lease": lease, "role": role}).scalar()

        pid = await asyncio.to_thread(ask)
        return next((name for name in (role, f"{role}-2") if name in self.proxies and self._pid(name) == pid), role)

    # Faults.

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process."""
        os.kill(self._pid(name), number)

    def signal_group(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process and to those that it started."""
        process = psutil.Process(self._pid(name))
        for one in (process, *process.children(recursive=True)):
            one.send_signal(number)

    def model(self, name: str) -> psutil.Process:
        """The process of one of the demo's models."""
        children = psutil.Process(self._pid("orchestrator")).children(recursive=True)
        hosts = [child for child in children if any(part.endswith(f"submissions/{name}") for part in child.cmdline())]
        if not hosts:
            raise FaultError(f"no process runs the model {name}")
        return hosts[0]

    async def restart(self, name: str) -> None:
        """Start a program again that was stopped."""
        await self.supervisor.start(self.supervisor.programs[name])

    def _pid(self, name: str) -> int:
        pid = self.supervisor.pid(name)
        if pid is None:
            raise FaultError(f"{name} is not running")
        return pid

    # Questions.

    async def now(self) -> datetime:
        """The database's time."""
        while True:
            await self.until("the database", "SELECT true")
            # What has just answered may have been the last words of a server that was killed.
            with contextlib.suppress(DBAPIError), self.engine.connect() as connection:
                found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
                return found

    def ask(self, query: str, values: Mapping[str, object]) -> bool:
        """Whether a query's one value is true; False while the database does not answer."""
        try:
            with self.engine.connect() as connection:
                return bool(connection.execute(text(query), values).scalar_one_or_none())
        except DBAPIError:
            return False

    async def until(self, what: str, query: str, **values: object) -> None:
        """Wait until a query's one value is true."""
        await self._until(what, lambda: self.ask(query, values))

    async def recovered(self, since: datetime) -> float:
        """Wait until every part works on what is later than `since`; the seconds that it took."""
        begun = asyncio.get_running_loop().time()
        values = {"since": since, "late": LATE_SECONDS, "models": self.setting.models}
        for what, query in WORKING.items():
            await self._until(f"{what} after {since:%H:%M:%S}", lambda query=query: self._works(query, values))
        await self._until("the API", self._api_answers)
        return asyncio.get_running_loop().time() - begun

    def _works(self, query: str, values: Mapping[str, object]) -> bool:
        pids = [self.supervisor.pid(name) for name in self.workers]
        return None not in pids and self.ask(query, {**values, "pids": pids})

    async def settle(self) -> None:
        """Ask no model any more, and wait until all that was asked is scored, counted and paid."""
        # One after the other, so that the last one ends what the others left.
        await self.supervisor.stop(["predict-2"])
        await self.until("predict with every shard", ALL_SHARDS, pid=self._pid("predict"))
        await self.supervisor.stop(["predict"])
        for what, query in SETTLED.items():
            await self.until(what, query, late=LATE_SECONDS)

    async def resume(self) -> None:
        """Ask models again, as before the next fault."""
        for name in ("predict", "predict-2"):
            await self.restart(name)
        await self.recovered(await self.now())

    def _api_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.plan.url}/reports/leaderboard", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    async def _until(self, what: str, true: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not await asyncio.to_thread(true):
            if loop.time() > begun + PATIENCE_SECONDS:
                raise FaultError(f"{what}: not within {PATIENCE_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)
        if (waited := loop.time() - begun) > NAMED_SECONDS:
            self.supervisor.say(f"{waited:.1f} s until there was: {what}")


@asynccontextmanager
async def running(folder: Path, setting: Setting, said: TextIO, *, wait: bool = True) -> AsyncIterator[ChaosStack]:
    """A stack that has recovered from its start, unless nobody is to `wait`; its processes' lines go to `said`."""
    plan = demo_plan(folder, free_port(), DemoFeed())
    plan = replace(plan, environment={**plan.environment, **ENVIRONMENT})
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres", durable=False))
        supervisor = Supervisor(Output(Console(file=said, width=200)))
        local = ChaosStack(plan, postgres, supervisor, setting)
        stack.callback(local.engine.dispose)
        socket = f"{postgres.socket_dir}/.s.PGSQL.{PORT}"
        for program in LocalStack(plan, postgres, supervisor).programs():
            if program.name != "orchestrator":
                for name in (program.name, f"{program.name}-2")[: 1 + (program.name in PAIRED)]:
                    proxy = CutProxy(lambda: asyncio.open_unix_connection(socket))
                    local.proxies[name] = await stack.enter_async_context(proxy.serving())
        await stack.enter_async_context(supervisor)  # ends its programs before the proxies, so that they can drain
        await local.start()
        if wait:
            await local.recovered(await local.now())
        yield local
