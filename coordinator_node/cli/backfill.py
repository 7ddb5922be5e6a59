"""What `coordinator-node backfill` does: asks for history, and fetches it here unless a feed worker is quicker.

Both work from one row under one lease. A command that is ended leaves its job to a feed worker, or to the same command
given again: either goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.db.engine import engine_from, transaction
from coordinator_node.db.failures import one_line
from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import BackfillStatus
from coordinator_node.entities.times import utc_now
from coordinator_node.feeds.contracts import FeedDataKind
from coordinator_node.runtime.leases import RENEW_SECONDS, Lease, LeaseLostError
from coordinator_node.runtime.logging import configure_logging
from coordinator_node.services.backfill.files import feed_folder
from coordinator_node.services.backfill.jobs import (
    LEASE_NAME,
    BackfillBusyError,
    HistoryRange,
    open_jobs,
    request_job,
)
from coordinator_node.services.backfill.runner import BackfillRunner
from coordinator_node.services.backfill.sources import source_maker

LOOK_SECONDS = 0.2
# While somebody else holds the lease, or held it when it died.
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Order:
    """What the command was given; None where the settings say it, and for an end that is now."""

    source: str | None
    subject: str | None
    kind: str | None
    granularity: str | None
    start: datetime
    end: datetime | None


def run_backfill(order: Order) -> int:
    """Fetch the history and show how far it has come; returns the exit code.

    Raises:
        ConfigurationError, FeedError: a setting, the source, or what was ordered cannot be.
    """
    settings = load_settings()
    # The bar shows what goes on; what goes wrong is logged above it.
    configure_logging(settings.model_copy(update={"log_level": settings.log_level or "WARNING"}), "backfill")
    wanted = _wanted(order, settings)
    feed_of = source_maker(settings)
    feed_of(wanted.source)  # refused at once, rather than in the job's row
    engine = engine_from(settings, "backfill")
    try:
        job = _open_job(engine, wanted, any_end=order.end is None)
        lease = Lease(engine, LEASE_NAME, f"backfill-{new_id()}")
        runner = BackfillRunner(engine, settings, lease, utc_now, feed_of)
        return _report(asyncio.run(_follow(engine, job, lease, runner)), settings)
    except (BackfillBusyError, DBAPIError) as error:
        typer.echo(one_line(error) if isinstance(error, DBAPIError) else str(error), err=True)
        return 1
    except KeyboardInterrupt:
        typer.echo("stopped; a feed worker goes on with it, or the same command given again", err=True)
        return 1
    finally:
        engine.dispose()


def _wanted(order: Order, settings: Settings) -> HistoryRange:
    granularity = order.granularity or settings.feed_granularity
    try:
        granularity_seconds(granularity)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return HistoryRange(
        source=(order.source or settings.feed_source).strip().lower(),
        subject=order.subject or settings.feed_subjects[0],
        kind=FeedDataKind(order.kind or settings.feed_kind).value,
        granularity=granularity,
        start=order.start,
        end=order.end or utc_now(),
    )


def _open_job(engine: Engine, wanted: HistoryRange, *, any_end: bool) -> BackfillJobRow:
    """The job of the same order, if it has not ended; else a new one."""
    with transaction(engine) as session:
        for job in open_jobs(session):
            is_same = (job.source, job.subject, job.kind, job.granularity, job.start_ts) == (
                wanted.source,
                wanted.subject,
                wanted.kind,
                wanted.granularity,
                wanted.start,
            )
            if is_same and (any_end or job.end_ts == wanted.end):
                typer.echo(f"going on with job {job.id}")
                return job
        try:
            return request_job(session, wanted, utc_now())
        except ValueError as error:
            raise ConfigurationError(str(error)) from error


async def _follow(engine: Engine, job: BackfillJobRow, lease: Lease, runner: BackfillRunner) -> BackfillJobRow:
    """Show the job until it has ended, whoever runs it."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        seconds = (job.end_ts - job.start_ts).total_seconds()
        bar = progress.add_task(f"{job.source} {job.subject} {job.kind} {job.granularity}", total=seconds, said="")
        async for seen in _seen(engine, job.id, lease, runner):
            done = ((seen.cursor_ts or seen.start_ts) - seen.start_ts).total_seconds()
            progress.update(bar, completed=done, said=f"{seen.records_written:,} records")
    return seen


async def _seen(engine: Engine, job_id: str, lease: Lease, runner: BackfillRunner) -> AsyncIterator[BackfillJobRow]:
    """The job's row again and again until it has ended; it is run here whenever the lease can be had."""
    keep_at = 0.0
    try:
        while True:
            job = await asyncio.to_thread(_read, engine, job_id)
            yield job
            if job.status in (BackfillStatus.COMPLETED, BackfillStatus.FAILED):
                return
            if time.monotonic() >= keep_at:
                held = await asyncio.to_thread(lease.keep)
                keep_at = time.monotonic() + (RENEW_SECONDS if held else WAIT_SECONDS)
            try:
                await runner.step()
            except LeaseLostError:
                keep_at = 0.0
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await runner.close()
        await asyncio.to_thread(lease.release)


def _read(engine: Engine, job_id: str) -> BackfillJobRow:
    with Session(engine) as session:
        return session.get_one(BackfillJobRow, job_id)


def _report(job: BackfillJobRow, settings: Settings) -> int:
    if job.status == BackfillStatus.FAILED:
        typer.echo(f"backfill failed: {job.error}", err=True)
        return 1
    folder = feed_folder(settings.backfill_data_dir, job.source, job.subject, job.kind, job.granularity)
    typer.echo(f"{job.records_written:,} records in {folder}")
    return 0
