"""What `coordinator-node rescore` does: scores a closed period again, and shows the ranking before and after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from coordinator_node.config.settings import load_settings
from coordinator_node.config_loader import load_config
from coordinator_node.db.engine import engine_from
from coordinator_node.db.failures import one_line
from coordinator_node.extensions.callable_resolver import resolve_callable
from coordinator_node.runtime.clock import database_time
from coordinator_node.runtime.logging import configure_logging
from coordinator_node.services.ranking import RankingError, Standing
from coordinator_node.services.rescore import Period, RescoreError, RescoreReport, rescore

REASONS_SHOWN = 5


@dataclass(frozen=True)
class Order:
    """What the command was given; `scoring` None means the function that the score worker uses."""

    start: datetime
    end: datetime
    scoring: str | None
    dry_run: bool


def run_rescore(order: Order) -> int:
    """Score the period again and show what came of it; returns the exit code.

    Raises:
        ConfigurationError: a setting, the config, the scoring function or the period cannot be used.
    """
    settings = load_settings()
    configure_logging(settings.model_copy(update={"log_level": settings.log_level or "WARNING"}), "rescore")
    config = load_config()
    if order.scoring is not None:
        config = config.model_copy(update={"scoring_function": resolve_callable(order.scoring)})
    period = Period(order.start, order.end)
    engine = engine_from(settings, "rescore")
    columns = (TextColumn("scoring again"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    try:
        with Session(engine) as session:
            now = database_time(session)  # a leaderboard of a later time would hide those of the score worker
        # Without a terminal it would leave an empty line beside the one that says what is wrong.
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("")
            report = rescore(
                engine,
                config,
                settings,
                period,
                now,
                dry_run=order.dry_run,
                progress=lambda done, of: progress.update(bar, completed=done, total=of),
            )
    except (RescoreError, RankingError, DBAPIError) as error:
        typer.echo(one_line(error) if isinstance(error, DBAPIError) else str(error), err=True)
        return 1
    except KeyboardInterrupt:
        typer.echo("stopped; nothing was written", err=True)
        return 1
    finally:
        engine.dispose()
    _show(report, period)
    return 0


def _show(report: RescoreReport, period: Period) -> None:
    Console(highlight=False).print(_side_by_side(report, period))
    for line in _said(report):
        typer.echo(line)


def _side_by_side(report: RescoreReport, period: Period) -> Table:
    key = report.after[0].key if report.after else "value"
    table = Table(title=f"Leaderboard as of {period.end.isoformat()}, before and after")
    table.add_column("model", overflow="fold")
    for name in ("rank before", "rank after", f"{key} before", f"{key} after", "change"):
        table.add_column(name, justify="right", overflow="fold")
    before = {standing.model_id: standing for standing in report.before}
    for now in report.after:
        was = before.get(now.model_id, now)
        label = now.model_name if now.model_name == now.model_id else f"{now.model_name} ({now.model_id})"
        table.add_row(label, _rank(was), _rank(now), _number(was.value), _number(now.value), _change(was, now))
    return table


def _said(report: RescoreReport) -> list[str]:
    counts = report.counts
    lines = [
        f"{counts.scored + counts.failed:,} predictions scored again: {counts.scored:,} have a score,"
        f" {counts.failed:,} failed; {counts.differing:,} differ from before",
    ]
    common = counts.reasons.most_common(REASONS_SHOWN)
    lines += [f"  failed {times:,} times: {reason}" for reason, times in common]
    if len(counts.reasons) > REASONS_SHOWN:
        lines.append(f"  and for {len(counts.reasons) - REASONS_SHOWN:,} other reasons")
    kept = {
        "have no stored ground truth": counts.without_truth,
        "lie outside the period, in snapshots that hold a part of it": counts.beside,
        "are in no snapshot of this version": report.older,
    }
    lines += [f"{count:,} predictions {why}; they keep the score they have" for why, count in kept.items() if count]
    lines += [
        f"checkpoint {made.id} ({made.status}, {made.start.isoformat()} to {made.end.isoformat()}) is made and stays"
        " as it is"
        for made in report.checkpoints
    ]
    if report.generation is None:
        lines.append("dry run: nothing was written")
    else:
        lines.append(f"written as generation {report.generation}: {counts.snapshots:,} snapshots replaced")
    return lines


def _rank(standing: Standing) -> str:
    return "-" if standing.rank is None else str(standing.rank)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _change(was: Standing, now: Standing) -> str:
    if was.value is None or now.value is None:
        return "" if was.value == now.value else "new" if was.value is None else "gone"
    return "" if was.value == now.value else f"{now.value - was.value:+.6g}"
