"""The commands as a user meets them: exit codes, and one line that says what went wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from coordinator_node.cli.main import run
from coordinator_node.config_loader import reset_cache

COMMANDS = Path(sys.executable).parent


class Command:
    """Runs `coordinator-node` in this process, in a folder of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["coordinator-node", *arguments])
        with pytest.raises(SystemExit) as exit_:
            run()
        output = self._capfd.readouterr()
        return int(exit_.value.code or 0), output.out, output.err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    return Command(monkeypatch, capfd, tmp_path)


@pytest.mark.parametrize("script", ["coordinator-node", "coordinator", "crunch-cli"])
def test_every_spelling_is_installed_and_lists_the_commands(script: str, tmp_path: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [str(COMMANDS / script), "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("demo", "up", "migrate"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command"),
        (["demo", "--seconds", "soon"], "--seconds"),
        (["demo", "--port", "70000"], "--port"),
        (["demo", "--feed", "replay"], "--feed replay needs --path FILE"),
        (["demo", "--path", "x.parquet"], "--path goes with --feed replay"),
        (["demo", "--feed", "replay", "--path", "missing.parquet"], "missing.parquet"),
        (["up", "no-such-folder"], "no-such-folder is not a folder"),
        (["up", "."], "--submissions"),
    ],
)
def test_wrong_usage_or_configuration_is_2_and_says_what(arguments: list[str], said: str, command: Command) -> None:
    code, _, errors = command(*arguments)
    assert code == 2, errors
    assert said in errors


def test_a_taken_port_is_named_before_anything_is_started(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = command("demo", "--port", str(port))
    assert code == 1
    assert f"port {port} on 127.0.0.1 cannot be used" in errors
    assert not Path(".coordinator/demo/postgres").exists()


@pytest.fixture
def config_file(tmp_path: Path) -> Iterator[Path]:
    """Where a workspace's config stands, seen as by a process that has imported none, and left as by none."""
    _forget_configs()
    folder = tmp_path / "config"
    folder.mkdir()
    yield folder / "crunch_config.py"
    _forget_configs()


def _forget_configs() -> None:
    for name in ("config", "config.crunch_config"):
        sys.modules.pop(name, None)
    reset_cache()


def test_migrate_makes_the_schema_and_loads_the_workspaces_schedules(
    command: Command,
    config_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    empty_database_url: str,
    connect: Callable[[str], Engine],
) -> None:
    config_file.write_text(
        "from coordinator_node.crunch_config import CrunchConfig, ScheduledPrediction\n"
        "contract = CrunchConfig(scheduled_predictions=[ScheduledPrediction(scope_key='MINE')])\n"
    )
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    code, _, errors = command("migrate")
    assert (code, errors) == (0, "")
    with connect(empty_database_url).connect() as connection:
        keys = connection.execute(text("SELECT scope_key FROM scheduled_prediction_configs WHERE active")).scalars()
        assert list(keys) == ["MINE"]


def test_a_broken_config_stops_migrate_with_the_reason(command: Command, config_file: Path) -> None:
    config_file.write_text("import no_such_library\n")
    code, _, errors = command("migrate")
    assert code == 2
    assert "config.crunch_config:CrunchConfig" in errors
    assert "no_such_library" in errors
