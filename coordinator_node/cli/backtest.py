"""What `coordinator-node backtest` does: plays a model over past records, and shows how it would have stood."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress

from coordinator_node.backtest import BacktestResult, BacktestRunner
from coordinator_node.backtest.download import CoordinatorError
from coordinator_node.config_loader import load_config
from coordinator_node.entities.errors import ConfigurationError


@dataclass(frozen=True)
class Order:
    """What the command was given; `data` or `coordinator_url` say where the records are, both None: the settings'."""

    model: str
    data: Path | None
    coordinator_url: str | None
    start: datetime
    end: datetime
    config: str | None
    subjects: tuple[str, ...] | None
    window: int | None
    costs_bps: float
    output: Path | None


def run_backtest(order: Order) -> int:
    """Play, and print the summary; returns the exit code.

    Raises:
        ConfigurationError: the model, the config or the records cannot be used.
    """
    if order.config:
        os.environ["CRUNCH_CONFIG_MODULE"] = order.config
    config = load_config()
    runner = BacktestRunner(
        load_model_class(order.model),
        config,
        data=order.data,
        coordinator_url=order.coordinator_url,
        api_key=os.environ.get("API_KEY"),
        subjects=order.subjects,
        window=order.window,
    )
    try:
        result = _played(runner, order)
        written = result.to_parquet(order.output) if order.output else None
    except (CoordinatorError, OSError) as error:
        typer.echo(f"no backtest: {error}", err=True)
        return 1
    typer.echo(f"competition: {type(config).__module__}.{type(config).__qualname__}")
    typer.echo(result.summary())
    effort = result.effort
    typer.echo(f"  {effort.bars:,} records in {effort.seconds:.1f} s, {effort.model_seconds:.1f} s of it in the model")
    if written:
        typer.echo(f"  predictions in {written}")
    return 0


def _played(runner: BacktestRunner, order: Order) -> BacktestResult:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("backtest", total=1.0)
        return runner.run(
            order.start,
            order.end,
            costs_bps=order.costs_bps,
            progress=lambda done: progress.update(bar, completed=done),
        )


def load_model_class(path: str) -> Any:
    """The class at PATH:Class, PATH being a file or a module. A file finds its neighbours, as a submission does.

    Raises:
        ConfigurationError: there is none, or it cannot be imported; the message says which and why.
    """
    place, separator, name = path.rpartition(":")
    if not separator or not name:
        raise ConfigurationError(f"{path!r} names no class: write PATH:Class, as in my_model.py:MyTracker")
    try:
        module = _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        found = getattr(module, name)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything while it is imported
        raise ConfigurationError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, type):
        raise ConfigurationError(f"{path}: {name} is no class")
    return found


def _module_of_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ConfigurationError(f"there is no file {file}")
    sys.path.insert(0, str(file.resolve().parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module
