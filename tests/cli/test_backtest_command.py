"""`coordinator-node backtest` as a cruncher meets it, in a workspace's challenge folder."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from backtest_cases import every, walk, write_files

from coordinator_node.cli import main
from coordinator_node.cli.init import Layout, create_workspace
from coordinator_node.config_loader import reset_cache

START = datetime(2025, 6, 1, tzinfo=UTC)
COMMAND = Path(sys.executable).with_name("coordinator-node")
PERIOD = ("--from", "2025-06-01T00:10", "--to", "2025-06-01T00:20")


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    folder = create_workspace("my-crunch", "prediction", tmp_path, Layout()) / "challenge"
    times = every(1, START, START + timedelta(minutes=21))
    write_files(folder / "data", [*walk("BTC", times), *walk("ETH", times)])
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEED_")}
    return subprocess.run(
        [str(COMMAND), "backtest", *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )


def test_it_plays_a_file_and_says_how_it_stood(challenge: Path) -> None:
    model = "my_crunch/examples/momentum.py:Momentum"
    config = ("--config", "my_crunch.config:CrunchConfig")
    done = run(challenge, model, "--data", "data", *PERIOD, *config, "-o", "said.parquet")
    assert done.returncode == 0, done.stderr
    assert "competition: my_crunch.config.CrunchConfig" in done.stdout
    assert "240 SCORED" in done.stdout
    assert "score_recent" in done.stdout
    assert pq.read_table(challenge / "said.parquet").num_rows == 240


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.py:Model", "--data", "data", *PERIOD), "there is no file nowhere.py"),
        (("momentum", "--data", "data", *PERIOD), "names no class"),
        (("my_crunch.tracker:Missing", "--data", "data", *PERIOD), "has no attribute 'Missing'"),
        (("my_crunch.tracker:TrackerBase", "--data", "none", *PERIOD), "no records of any feed in none"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    challenge: Path,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(challenge)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["coordinator-node", "backtest", *arguments])
    for name in [name for name in os.environ if name.startswith("FEED_")]:
        monkeypatch.delenv(name)
    reset_cache()
    with pytest.raises(SystemExit) as ended:
        main.run()
    reset_cache()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("config", "my_crunch")]:
        del sys.modules[name]  # other tests make workspaces with modules of these names
    assert ended.value.code == 2
    errors = capfd.readouterr().err
    assert said in errors
    assert "Traceback" not in errors
