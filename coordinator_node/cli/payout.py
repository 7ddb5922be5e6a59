"""What `coordinator-node payout` does: divides a pool by a checkpoint's emission, as a file on stdout."""

from __future__ import annotations

import json
from typing import Literal

import typer
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from coordinator_node.config.settings import load_settings
from coordinator_node.db.engine import engine_from
from coordinator_node.db.failures import one_line
from coordinator_node.db.reports.checkpoints import checkpoint_by_id, newest_checkpoints
from coordinator_node.db.reports.records import Record
from coordinator_node.entities.emission import FRAC_64_MULTIPLIER
from coordinator_node.services.payout import (
    UnknownCheckpointError,
    UnusableCheckpointError,
    cli_emission,
    emission_in,
    prize_lines,
    prizes,
)

type Form = Literal["prizes", "jsonl", "cli"]

LATEST = "latest"


def run_payout(checkpoint_id: str, total: int, form: Form) -> int:
    """Write the file to stdout, and to stderr what a reader of it must know; returns the exit code.

    Args:
        checkpoint_id: which one; `latest` for the one whose period ends last.
        total: the pool in its smallest unit; `cli` is percentages and takes no notice of it.
        form: `prizes` is the API's list, `jsonl` one prize a line, `cli` what the chain's command line takes.

    Raises:
        ConfigurationError: a setting cannot be.
    """
    engine = engine_from(load_settings(), "payout")
    try:
        checkpoint = _read(engine, checkpoint_id)
        content = _content(checkpoint, total, form)
    except DBAPIError as error:
        typer.echo(one_line(error), err=True)
        return 1
    except (UnknownCheckpointError, UnusableCheckpointError) as error:
        typer.echo(str(error), err=True)
        return 1
    finally:
        engine.dispose()
    typer.echo(content, nl=bool(content))
    _note(checkpoint)
    return 0


def _read(engine: Engine, checkpoint_id: str) -> Record:
    with engine.connect() as connection:
        if checkpoint_id == LATEST:
            found = next(iter(newest_checkpoints(connection)), None)
        else:
            found = checkpoint_by_id(connection, checkpoint_id)
    if found is None:
        raise UnknownCheckpointError(checkpoint_id)
    return found


def _content(checkpoint: Record, total: int, form: Form) -> str:
    if form == "jsonl":
        return "\n".join(json.dumps(line) for line in prize_lines(checkpoint, total))
    return json.dumps(cli_emission(checkpoint) if form == "cli" else prizes(checkpoint, total), indent=2)


def _note(checkpoint: Record) -> None:
    """Say on stderr what the numbers alone do not."""
    emission = emission_in(checkpoint)
    if not emission["cruncher_rewards"]:
        reason = (checkpoint["meta"] or {}).get("reason", "its emission names no model")
        typer.echo(f"checkpoint {checkpoint['id']} pays nobody: {reason}", err=True)
    if retained := emission.get("retained_pct", 0):
        typer.echo(
            f"checkpoint {checkpoint['id']} retains {retained * 100 / FRAC_64_MULTIPLIER:.7f} % of the pool: the total"
            " is divided among the models that are paid, so give it without that part",
            err=True,
        )
