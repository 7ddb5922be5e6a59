"""The older spellings: `coordinator`, whose `init` makes the older layout and `demo` scaffolds; and `crunch-cli`."""

from __future__ import annotations

from pathlib import Path

import typer

from coordinator_node.cli.init import OLDER_LAYOUT, run_init
from coordinator_node.cli.main import DEFAULT_PACK, OutputFolder, Overwrite, PackName, WorkspaceName, app, run
from coordinator_node.cli.main import demo as run_demo
from coordinator_node.cli.main import init as init_workspace

DEMO_NAME = "btc-up"


def _with_commands_of_today(name: str, *, but: tuple[object, ...] = ()) -> typer.Typer:
    made = typer.Typer(name=name, help=app.info.help, no_args_is_help=True, add_completion=False)
    made.registered_commands = [command for command in app.registered_commands if command.callback not in but]
    return made


coordinator = _with_commands_of_today("coordinator", but=(init_workspace, run_demo))
crunch_cli = _with_commands_of_today("crunch-cli")
crunch_cli.command("init-workspace")(init_workspace)


@coordinator.command()
def init(
    name: WorkspaceName, pack: PackName = DEFAULT_PACK, output: OutputFolder = Path(), force: Overwrite = False
) -> None:
    """Make a workspace NAME/ with crunch-node-NAME/, crunch-NAME/ and a Makefile."""
    raise typer.Exit(run_init(name, pack, output, OLDER_LAYOUT, force=force))


@coordinator.command()
def demo(output: OutputFolder = Path(), force: Overwrite = False) -> None:
    """Make an example workspace named btc-up; `coordinator-node demo` runs a competition at once."""
    raise typer.Exit(run_init(DEMO_NAME, DEFAULT_PACK, output, OLDER_LAYOUT, force=force))


def run_coordinator() -> None:
    """Run `coordinator` and exit with its code."""
    run(coordinator)


def run_crunch_cli() -> None:
    """Run `crunch-cli` and exit with its code."""
    run(crunch_cli)
