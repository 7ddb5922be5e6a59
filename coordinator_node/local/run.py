"""Runs a local stack from start to end: Ctrl-C or the time given drains it, and the verdict is printed."""

from __future__ import annotations

import asyncio
import signal
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import DBAPIError

from coordinator_node.client import ApiError, CoordinatorClient
from coordinator_node.entities.times import utc_now
from coordinator_node.local.output import Output
from coordinator_node.local.postgres import EmbeddedPostgres, EmbeddedPostgresError
from coordinator_node.local.running import announced
from coordinator_node.local.stack import LocalStack, StackError, StackPlan, check_port
from coordinator_node.local.supervisor import CannotStartError, Supervisor
from coordinator_node.local.verdict import emission_table, judge, leaderboard_table
from coordinator_node.schemas.report.competition import LeaderboardEntry

SHOW_SECONDS = 5.0
ASK_SECONDS = 2.0


def run_stack(plan: StackPlan, *, seconds: float | None, fresh: bool) -> int:
    """Run a plan until its time is over or a signal comes; returns the exit code.

    With `seconds` the code is 0 only if every model was scored, and a leaderboard and a checkpoint with a whole
    emission exist. Without, it is 0 for a run that was ended from outside.
    """
    console = Console(highlight=False)
    try:
        check_port(plan.port)
        plan.state.mkdir(parents=True, exist_ok=True)
        with EmbeddedPostgres(plan.state / "postgres") as postgres:
            if fresh:
                postgres.erase()
            return asyncio.run(_run(plan, postgres, console, seconds))
    except (StackError, EmbeddedPostgresError, CannotStartError, OSError, DBAPIError) as error:
        _say_failed(str(error))
        return 1
    except asyncio.CancelledError:
        _say_failed("ended at once by a second signal")
        return 130


async def _run(plan: StackPlan, postgres: EmbeddedPostgres, console: Console, seconds: float | None) -> int:
    stop = asyncio.Event()
    running = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and running is not None:
            running.cancel()  # the supervisor kills what is left
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    began = utc_now()
    async with Supervisor(Output(console)) as supervisor:
        stack = LocalStack(plan, postgres, supervisor)
        starting = asyncio.ensure_future(stack.start())
        await _first(starting, stop)
        if not starting.done():
            starting.cancel()
            return 0
        starting.result()
        _say_where(plan, supervisor)
        showing = asyncio.create_task(_show_leaderboards(plan, console))
        with announced(plan.state, stack.addresses()):
            try:
                await asyncio.wait_for(stop.wait(), seconds)
            except TimeoutError:
                supervisor.say(f"{seconds:g} s are over: draining")
            else:
                supervisor.say("draining")
            showing.cancel()
            await stack.drain()
        return await _finish(postgres, console, began, judged=seconds is not None and not stop.is_set())


async def _first(task: asyncio.Future[Any], event: asyncio.Event) -> None:
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _say_where(plan: StackPlan, supervisor: Supervisor) -> None:
    supervisor.say(f"API          {plan.url}   (docs: {plan.url}/docs)")
    supervisor.say(f"leaderboard  {plan.url}/reports/leaderboard")
    supervisor.say(f"models       {plan.submissions}   (a folder put there joins while this runs)")
    supervisor.say("Ctrl-C drains and stops everything")


async def _show_leaderboards(plan: StackPlan, console: Console) -> None:
    """Print each new leaderboard as the API tells it."""
    shown = None
    while True:
        await asyncio.sleep(SHOW_SECONDS)
        rows = await asyncio.to_thread(_ask_leaderboard, plan.url)
        if rows and rows[0].created_at != shown:
            shown = rows[0].created_at
            entries = [
                {**dict(row), "score": {"metrics": row.score_metrics, "ranking": row.score_ranking}} for row in rows
            ]
            console.print(leaderboard_table(entries, f"Leaderboard of {shown.astimezone():%H:%M:%S}"))


def _ask_leaderboard(url: str) -> list[LeaderboardEntry]:
    try:
        with CoordinatorClient(url, timeout_seconds=ASK_SECONDS, attempts=1) as client:
            return client.leaderboard()
    except ApiError:
        return []


async def _finish(postgres: EmbeddedPostgres, console: Console, began: datetime, *, judged: bool) -> int:
    verdict = await asyncio.to_thread(judge, postgres.url, began)
    if verdict.leaderboard:
        console.print(leaderboard_table(verdict.leaderboard, "Final leaderboard"))
    if verdict.checkpoint:
        console.print(emission_table(verdict.checkpoint))
    if not judged:
        return 0
    for problem in verdict.problems:
        _say_failed(problem)
    if not verdict.problems:
        console.print("[bold green]done:[/] every model was scored, and the emission sums to 1000000000")
    return 1 if verdict.problems else 0


def _say_failed(reason: str) -> None:
    Console(stderr=True, highlight=False).print(f"[bold red]failed:[/] {escape(reason)}", soft_wrap=True)
