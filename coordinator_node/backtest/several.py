"""Several backtests beside each other, in processes of their own where the model can be sent to them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coordinator_node.backtest.result import BacktestResult
from coordinator_node.entities.errors import ConfigurationError


@dataclass(frozen=True)
class Job:
    """One backtest: its name among the others, and what runs it over a period."""

    name: str
    run: Callable[..., BacktestResult]
    start: datetime
    end: datetime
    costs_bps: float


def run_job(job: Job) -> BacktestResult:
    """Run one; what it raises says which it was."""
    try:
        return job.run(job.start, job.end, name=job.name, costs_bps=job.costs_bps)
    except Exception as error:
        error.add_note(f"this was {job.name!r} of several backtests")
        raise


def run_all(jobs: Sequence[Job], processes: int | None, what: str) -> dict[str, BacktestResult]:
    """Run them all, with a bar on stderr; results by name, in the order of the jobs.

    Args:
        jobs: what to run.
        processes: how many at once; None means as many as there are processors. It is 1 where a process of its own
            could not import the model or the config, as those that a notebook or a script's own file defines.
        what: what the bar calls them.

    Raises:
        ConfigurationError: two jobs have one name, so that one result would be lost; or what a run raises.
    """
    double = next((name for name, count in Counter(job.name for job in jobs).items() if count > 1), None)
    if double is not None:
        raise ConfigurationError(f"several of these {what} are called {double!r}: which result is whose?")
    wanted = min(processes or os.cpu_count() or 1, len(jobs))
    found: dict[str, BacktestResult] = {}
    with _bar(what, len(jobs)) as advance:
        if wanted < 2 or not all(_can_be_sent(job) for job in jobs):
            for job in jobs:
                found[job.name] = run_job(job)
                advance()
        else:
            with ProcessPoolExecutor(wanted, multiprocessing.get_context("spawn")) as pool:
                with _without_main():
                    names = {pool.submit(run_job, job): job.name for job in jobs}
                for done in as_completed(names):
                    found[names[done]] = done.result()
                    advance()
    return {job.name: found[job.name] for job in jobs}


def _can_be_sent(job: Job) -> bool:
    try:
        sent = pickle.dumps(job)
    except Exception:  # what cannot be pickled says so in many ways
        return False
    return b"__main__" not in sent


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started meanwhile do not run the script again that was started here.

    They need nothing of it, and one without `if __name__ == "__main__":` would come to the same backtests again.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[], Any]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
