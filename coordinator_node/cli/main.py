"""The commands `coordinator-node`, `coordinator` and `crunch-cli`.

Exit codes: 0 done; 1 failed, with one line on stderr; 2 wrong usage or configuration.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.times import as_utc
from coordinator_node.feeds.contracts import FeedDataKind
from coordinator_node.feeds.errors import FeedError

# Each command imports what it needs when it runs, so that asking for help does not load a database driver.

DEMO_STATE = Path(".coordinator/demo")
API_PORT = 8000
DEFAULT_PACK = "prediction"

app = typer.Typer(
    name="coordinator-node",
    help="Run live forecasting competitions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Seconds = Annotated[float | None, typer.Option(min=1, help="Run so long, then drain and judge the run.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the report API on this machine.")]
WorkspaceName = Annotated[str, typer.Argument(help="The workspace's name, in kebab-case, as in btc-up.")]
PackName = Annotated[str, typer.Option(help="What kind of competition to begin with; list-packs describes them.")]
OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="The folder to make it in.")]
Overwrite = Annotated[bool, typer.Option("--force", help="Write over the files of a workspace that is there.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start with an empty database.")]


def _moment(text: str) -> datetime:
    """A time as the commands take it: ISO 8601, in UTC where it names no zone."""
    try:
        return as_utc(datetime.fromisoformat(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-01-31 or 2026-01-31T12:00:00Z") from None


@app.command()
def demo(
    seconds: Seconds = None,
    port: Port = API_PORT,
    fresh: Fresh = False,
    feed: Annotated[
        Literal["simulated", "replay"], typer.Option(help="Where the market data comes from.")
    ] = "simulated",
    path: Annotated[Path | None, typer.Option(help="Parquet or CSV file of candles or trades, for replay.")] = None,
    speed: Annotated[float, typer.Option(min=0.001, help="How many times as fast the file is replayed.")] = 1.0,
) -> None:
    """Run a whole live competition on this machine, with example models.

    What it keeps between runs stands in .coordinator/demo of the present folder.
    """
    if (feed == "replay") != (path is not None):
        raise typer.BadParameter("--feed replay needs --path FILE, and --path goes with --feed replay")
    from coordinator_node.local.demo import DemoFeed, demo_plan
    from coordinator_node.local.run import run_stack

    plan = demo_plan(DEMO_STATE.resolve(), port, DemoFeed(feed, path, speed))
    raise typer.Exit(run_stack(plan, seconds=seconds, fresh=fresh))


@app.command()
def up(
    workspace: Annotated[Path, typer.Argument(help="Folder with config/ and .local.env.")] = Path(),
    submissions: Annotated[
        Path | None, typer.Option(help="Folder of the models' folders; default: submissions/ of the workspace.")
    ] = None,
    seconds: Seconds = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: REPORT_API_PORT, else 8000.")] = None,
    fresh: Fresh = False,
) -> None:
    """Run a workspace's competition on this machine, without Docker."""
    from coordinator_node.local.run import run_stack
    from coordinator_node.local.workspace import workspace_plan

    plan = workspace_plan(workspace, submissions, port)
    raise typer.Exit(run_stack(plan, seconds=seconds, fresh=fresh))


@app.command()
def migrate(
    reset: Annotated[bool, typer.Option("--reset", help="Drop everything in the database first.")] = False,
) -> None:
    """Bring the database's schema up to this version, and load the schedules."""
    from coordinator_node.db.init_db import main as init_db

    raise typer.Exit(init_db(["--reset"] if reset else []))


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="Where the dump goes; must not be there yet.")]) -> None:
    """Write the whole database into FILE, by pg_dump, and into FILE.json what restore checks it by.

    Workers may run meanwhile: the dump is of one moment.
    """
    from coordinator_node.cli.backup import run_backup

    raise typer.Exit(run_backup(file))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What backup wrote, with its .json beside it.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what the database and the dump both hold; end the workers first.")
    ] = False,
) -> None:
    """Restore a backup into an empty database, all of it or nothing, and check it: rows, chains, sequences."""
    from coordinator_node.cli.backup import run_restore

    raise typer.Exit(run_restore(file, replace=replace))


@app.command()
def backfill(
    start: Annotated[datetime, typer.Option("--from", parser=_moment, metavar="TIME", help="First moment to fetch.")],
    end: Annotated[
        datetime | None,
        typer.Option("--to", parser=_moment, metavar="TIME", help="First moment not to fetch; default: now."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Default: FEED_SOURCE.")] = None,
    subject: Annotated[str | None, typer.Option(help="Default: the first of FEED_SUBJECTS.")] = None,
    kind: Annotated[FeedDataKind | None, typer.Option(help="Default: FEED_KIND.")] = None,
    granularity: Annotated[str | None, typer.Option(help="Default: FEED_GRANULARITY.")] = None,
) -> None:
    """Fetch a feed's history into daily Parquet files in BACKFILL_DATA_DIR.

    Times are ISO 8601, in UTC unless they say otherwise. Given again after it was stopped, it goes on.
    """
    from coordinator_node.cli.backfill import Order, run_backfill

    raise typer.Exit(run_backfill(Order(source, subject, kind, granularity, start, end)))


@app.command()
def rescore(
    start: Annotated[
        datetime, typer.Option("--from", parser=_moment, metavar="TIME", help="First moment of the period.")
    ],
    end: Annotated[datetime, typer.Option("--to", parser=_moment, metavar="TIME", help="First moment after it.")],
    scoring: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="Default: the one that the score worker uses.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would come of it, and write nothing.")] = False,
) -> None:
    """Score a closed period again, and show the leaderboard before and after.

    The period is that of the moments at which predictions' outcomes were known (resolvable_at). What it writes is a new
    generation, which counts from then on: older scores, snapshots and leaderboards stay, and so do checkpoints.
    """
    from coordinator_node.cli.rescore import Order, run_rescore

    raise typer.Exit(run_rescore(Order(start, end, scoring, dry_run)))


@app.command()
def init(
    name: WorkspaceName, pack: PackName = DEFAULT_PACK, output: OutputFolder = Path(), force: Overwrite = False
) -> None:
    """Make a workspace NAME/ with node/, challenge/ and a Makefile."""
    from coordinator_node.cli.init import Layout, run_init

    raise typer.Exit(run_init(name, pack, output, Layout(), force=force))


@app.command()
def doctor(
    workspace: Annotated[Path, typer.Argument(help="Folder with config/ and .local.env.")] = Path(),
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave out the database, the orchestrator and the port.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Check a workspace before it runs: one line a check, with what to do.

    Exit codes: 0 nothing would fail, 1 something would fail in production, 2 wrong usage.
    """
    from coordinator_node.cli.doctor import run_doctor

    raise typer.Exit(run_doctor(workspace, offline=offline, as_json=as_json))


@app.command("list-packs")
def list_packs() -> None:
    """List the kinds of competition that `init --pack` can begin with."""
    from coordinator_node.cli.templates import packs

    for pack in packs().values():
        typer.echo(f"{pack.name:<12} {pack.title}")


@app.command()
def payout(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint's id, or latest.")],
    total: Annotated[int, typer.Option(min=0, metavar="N", help="What is paid out, in its smallest unit.")],
    form: Annotated[
        Literal["prizes", "jsonl", "cli"],
        typer.Option(
            "--format",
            help="prizes: as the report API gives them; jsonl: one a line; cli: percentages for the chain's command.",
        ),
    ] = "prizes",
) -> None:
    """Write the file that a checkpoint is paid by: integers that sum to exactly N."""
    from coordinator_node.cli.payout import run_payout

    raise typer.Exit(run_payout(checkpoint, total, form))


@app.command()
def verify(
    url: Annotated[str, typer.Option(help="The report API, such as http://host:8000.")],
    checkpoint: Annotated[str | None, typer.Option(metavar="ID", help="Default: the newest.")] = None,
) -> None:
    """Check what a competition paid, from what its report API publishes.

    It recomputes hashes, proofs, chains, sums, ranking and emission, and ends with 1 at the first lie.
    """
    from coordinator_node.cli.verify import verification_script

    raise typer.Exit(verification_script().main(["--url", url, *(["--checkpoint", checkpoint] if checkpoint else [])]))


@app.command()
def backtest(
    model: Annotated[str, typer.Argument(metavar="PATH:Class", help="The model's file or module, and its class.")],
    start: Annotated[datetime, typer.Option("--from", parser=_moment, metavar="TIME", help="First moment to play.")],
    end: Annotated[datetime, typer.Option("--to", parser=_moment, metavar="TIME", help="First moment not to play.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of daily Parquet files, as backfill writes (BACKFILL_DATA_DIR); rounds of a tournament."
        ),
    ] = None,
    coordinator_url: Annotated[
        str | None, typer.Option("--coordinator", metavar="URL", help="Take a coordinator's files; --data keeps them.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="The competition; default: as a worker finds it here.")
    ] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only these subjects; may be repeated.")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Records a model is given; default 120.")] = None,
    costs: Annotated[float, typer.Option(min=0, help="Basis points that a change of position costs.")] = 0.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the predictions as Parquet.")] = None,
) -> None:
    """Play a model over past records by the code that runs it live, and show how it would have stood.

    Times are ISO 8601, in UTC unless they say otherwise. API_KEY is shown to a coordinator that asks for it.
    """
    from coordinator_node.cli.backtest import Order, run_backtest

    subjects = tuple(subject) if subject else None
    order = Order(model, data, coordinator_url, start, end, config, subjects, window, costs, output)
    raise typer.Exit(run_backtest(order))


def run(commands: typer.Typer = app) -> None:
    """Run `coordinator-node`, or another spelling's commands, and exit with their code."""
    sys.path.insert(0, "")  # a workspace's own modules, as `python -m` finds them
    try:
        commands()
    except (ConfigurationError, FeedError) as error:
        typer.echo(f"wrong configuration: {error}", err=True)
        sys.exit(2)
