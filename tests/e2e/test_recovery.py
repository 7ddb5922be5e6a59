"""The whole local stack with kill -9 of every part of it: it recovers by itself, and no row is lost or doubled."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from invariants import broken_rules, check_leaderboard_is_the_naive_one
from rich.console import Console
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from coordinator_node.local.demo import DemoFeed, demo_plan
from coordinator_node.local.output import Output
from coordinator_node.local.postgres import EmbeddedPostgres
from coordinator_node.local.stack import LocalStack, free_port
from coordinator_node.local.supervisor import Supervisor

# Longer than the fifteen seconds that recovery may take, for a machine that runs other tests beside this one.
PATIENCE_SECONDS = 60.0

# For each part that is killed, a query that is true once it works again; :since is the time of the kill.
WORKING = {
    "feed": "SELECT count(*) > 0 FROM feed_records WHERE ts_ingested > :since",
    "predict": "SELECT count(*) > 0 FROM prediction_slots WHERE status = 'CALLED' AND created_at > :since",
    "score": "SELECT count(*) > 0 FROM leaderboards WHERE created_at > :since",
    "checkpoint": "SELECT count(*) > 0 FROM worker_heartbeats WHERE role = 'checkpoint' AND started_at > :since",
    "report": "SELECT count(*) > 0 FROM worker_heartbeats WHERE role = 'report' AND started_at > :since",
}
MODEL_WORKING = """
    SELECT count(*) > 0 FROM predictions JOIN models ON models.id = model_id
    WHERE models.name = 'Momentum' AND predictions.status IN ('PENDING', 'SCORED') AND performed_at > :since
"""
NOTHING_DUE = "SELECT count(*) = 0 FROM predictions WHERE status = 'PENDING'"
ALL_COUNTED = """
    SELECT count(*) = 0 FROM scores
    WHERE snapshot_state = 'PENDING' OR scored_at > (SELECT max(created_at) FROM leaderboards)
"""


class Stack:
    """A running stack, and questions to its database that wait for their answer."""

    def __init__(self, stack: LocalStack, engine: Engine, output: io.StringIO) -> None:
        self.stack = stack
        self.engine = engine
        self.output = output

    async def until(self, what: str, query: str, **values: object) -> None:
        await self._until(what, lambda: self._ask(query, values))

    async def until_api_answers(self) -> None:
        await self._until("API", lambda: _answers(f"{self.stack.plan.url}/healthz"))

    async def now(self) -> object:
        with self.engine.connect() as connection:
            return connection.execute(text("SELECT clock_timestamp()")).scalar_one()

    async def kill(self, name: str) -> None:
        pid = self.stack.supervisor.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def kill_model(self, name: str) -> None:
        orchestrator = self.stack.supervisor.pid("orchestrator")
        children = psutil.Process(orchestrator).children(recursive=True)
        hosts = [child for child in children if any(part.endswith(f"submissions/{name}") for part in child.cmdline())]
        assert hosts, [child.cmdline() for child in children]
        hosts[0].kill()

    async def _until(self, what: str, true: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_SECONDS
        while not await asyncio.to_thread(true):
            if loop.time() > give_up:
                raise AssertionError(f"{what} did not come back\n{self.output.getvalue()[-8000:]}")
            await asyncio.sleep(0.2)

    def _ask(self, query: str, values: dict[str, object]) -> bool:
        try:
            with self.engine.connect() as connection:
                return bool(connection.execute(text(query), values).scalar_one())
        except DBAPIError:
            return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coordinator-e2e-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_kill_9_of_every_part(state: Path, connect: Callable[[str], Engine]) -> None:
    written = io.StringIO()
    plan = demo_plan(state, free_port(), DemoFeed())
    with EmbeddedPostgres(state / "postgres", durable=False) as postgres:
        async with Supervisor(Output(Console(file=written, width=200))) as supervisor:
            local = LocalStack(plan, postgres, supervisor)
            await local.start()
            stack = Stack(local, connect(postgres.url), written)
            await stack.until("the first leaderboard", "SELECT count(*) > 0 FROM leaderboards")
            await stack.until("the first score", "SELECT count(*) > 0 FROM scores")

            since = await stack.now()
            for name in WORKING:
                await stack.kill(name)
            stack.kill_model("momentum")
            for name, query in WORKING.items():
                await stack.until(name, query, since=since)
            await stack.until("momentum", MODEL_WORKING, since=since)
            await stack.until_api_answers()

            since = await stack.now()
            await stack.kill("postgres")
            for name in ("feed", "predict", "score"):
                await stack.until(f"{name} after Postgres", WORKING[name], since=since)

            await supervisor.stop(["predict"])
            await stack.until("the last score", NOTHING_DUE)
            await stack.until("the last snapshot", ALL_COUNTED)
            await stack.until("a checkpoint", "SELECT count(*) > 0 FROM checkpoints")
            await local.drain()
            assert broken_rules(stack.engine) == {}
            check_leaderboard_is_the_naive_one(stack.engine)
            stack.engine.dispose()
