"""Several backtests beside each other, in processes of their own where the model can be sent to them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coordinator_node.backtest.result import BacktestResult


@dataclass(frozen=True)
class Job:
    """One backtest: its name among the others, and what runs it over a period."""

    name: str
    run: Callable[..., BacktestResult]
    start: datetime
    end: datetime
    costs_bps: float


def run_job(job: Job) -> BacktestResult:
    """Run one."""
    return job.run(job.start, job.end, name=job.name, costs_bps=job.costs_bps)


def run_all(jobs: Sequence[Job], processes: int | None, what: str) -> dict[str, BacktestResult]:
    """Run them all, with a bar on stderr; results by name, in the order of the jobs.

    Args:
        jobs: what to run.
        processes: how many at once; None means as many as there are processors. It is 1 where a process of its own
            could not import the model or the config, as those that a notebook or a script's own file defines.
        what: what the bar calls them.
    """
    wanted = min(processes or os.cpu_count() or 1, len(jobs))
    found: dict[str, BacktestResult] = {}
    with _bar(what, len(jobs)) as advance:
        if wanted < 2 or not all(_can_be_sent(job) for job in jobs):
            for job in jobs:
                found[job.name] = run_job(job)
                advance()
        else:
            with ProcessPoolExecutor(wanted, multiprocessing.get_context("spawn")) as pool:
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
def _bar(what: str, total: int) -> Iterator[Callable[[], Any]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
