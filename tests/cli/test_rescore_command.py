"""`coordinator-node rescore` as its user meets it: the tables side by side, exit codes, and a kill in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import builders
import pytest
from builders import at, one, rows
from sqlalchemy import Engine
from sqlmodel import Session, SQLModel

from coordinator_node.cli.main import run
from coordinator_node.config_loader import reset_cache
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.score import ScoreStage
from coordinator_node.services.snapshot import SnapshotStage

PERIOD = ("--from", "2026-03-01", "--to", "2026-03-02")

Rescore = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scoring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An operator's module with scoring functions."""
    module = ModuleType("operators_scoring")
    functions: dict[str, Any] = {
        "plain": lambda prediction, truth: {"value": prediction["value"]},
        "negated": lambda prediction, truth: {"value": -prediction["value"]},
        "stops": lambda prediction, truth: (_ for _ in ()).throw(KeyboardInterrupt),
    }
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, "operators_scoring", module)
    return module


@pytest.fixture
def scored(engine: Engine, scoring: ModuleType) -> Engine:
    """Two models with two predictions each, scored by `plain` and counted."""
    config = CrunchConfig(scoring_function=scoring.plain, metrics=[])
    with Session(engine) as session:
        held = builders.lease(session)
        for model_id in ("a", "b"):
            builders.model(session, model_id, name=f"the {model_id}")
        for slot in range(2):
            row = builders.market_input(session, actuals_jsonb={"profit": 1.0}, status="RESOLVED")
            times = {"performed_at": at(slot * 100), "resolvable_at": at(slot * 100 + 60)}
            for model_id, value in (("a", 1.0), ("b", 2.0)):
                builders.prediction(session, model_id, row.id, inference_output_jsonb={"value": value + slot}, **times)
        session.commit()
    ScoreStage(engine, config, builders.settings_of()).run_once(at(200))
    SnapshotStage(engine, config, builders.settings_of()).run_once(at(200), held)
    return engine


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> Rescore:
    for name, value in {
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "DATABASE_URL": database_url,
        "FEED_SOURCE": "simulated",
        "SCORING_FUNCTION": "operators_scoring:plain",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    reset_cache()

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["coordinator-node", "rescore", *arguments])
        with pytest.raises(SystemExit) as exit_:
            run()
        output = capfd.readouterr()
        return int(exit_.value.code or 0), output.out, output.err

    return run_command


def row_counts(engine: Engine) -> dict[str, int]:
    return {
        table.name: one(engine, f'SELECT count(*) FROM "{table.name}"') for table in SQLModel.metadata.sorted_tables
    }


def test_a_dry_run_shows_both_rankings_and_writes_nothing(scored: Engine, command: Rescore) -> None:
    before = row_counts(scored)
    code, out, errors = command(*PERIOD, "--scoring", "operators_scoring:negated", "--dry-run")
    assert (code, errors) == (0, "")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "the " in line]
    assert cells == [["the a (a)", "2", "1", "1.5", "-1.5", "-3"], ["the b (b)", "1", "2", "2.5", "-2.5", "-5"]]
    assert "before and after" in out
    assert "4 predictions scored again: 4 have a score, 0 failed; 4 differ from before" in out
    assert "dry run: nothing was written" in out
    assert row_counts(scored) == before


@pytest.mark.usefixtures("wrong_clock")
def test_no_leaderboard_is_later_than_the_databases_clock(scored: Engine, command: Rescore) -> None:
    assert command(*PERIOD)[0] == 0
    assert one(scored, "SELECT count(*) FROM leaderboards WHERE created_at > clock_timestamp()") == 0


def test_it_writes_a_generation_by_the_workers_function_unless_told_otherwise(scored: Engine, command: Rescore) -> None:
    code, out, _ = command(*PERIOD)
    assert code == 0
    assert "0 differ from before" in out
    assert "written as generation 2: 2 snapshots replaced" in out
    code, out, _ = command(*PERIOD, "--scoring", "operators_scoring:negated")
    assert "written as generation 3" in out
    assert rows(scored, "SELECT generation, count(*) AS n FROM scores GROUP BY 1 ORDER BY 1") == [
        {"generation": generation, "n": 4} for generation in (1, 2, 3)
    ]


def test_failures_and_checkpoints_are_said(scored: Engine, command: Rescore, scoring: ModuleType) -> None:
    vars(scoring)["moody"] = lambda prediction, truth: {"value": 1 / (prediction["value"] - 2)}
    with Session(scored) as session:
        builders.checkpoint(session, at(0), at(100), id="paid")
        session.commit()
    code, out, _ = command(*PERIOD, "--scoring", "operators_scoring:moody")
    assert code == 0
    assert "4 predictions scored again: 2 have a score, 2 failed" in out
    assert "failed 2 times: ZeroDivisionError" in out
    assert "checkpoint paid (PENDING, " in out
    assert "is made and stays as it is" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "2026-03-01"], 2, "--to"),
        (["--from", "soon", "--to", "2026-03-02"], 2, "'soon' is no time"),
        (["--from", "2026-03-01", "--to", "2999-01-01"], 2, "in the future"),
        (["--from", "2026-03-02", "--to", "2026-03-01"], 2, "is not before"),
        ([*PERIOD, "--scoring", "no_such_module:f"], 2, "no_such_module:f"),
        (["--from", "2020-01-01", "--to", "2020-01-02"], 1, "no prediction of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    scored: Engine, command: Rescore, arguments: list[str], code: int, said: str
) -> None:
    before = row_counts(scored)
    ended, _, errors = command(*arguments)
    assert ended == code
    assert said in errors
    assert row_counts(scored) == before


def test_what_is_not_final_is_refused_with_counts(scored: Engine, command: Rescore) -> None:
    with Session(scored) as session:
        builders.prediction(session, "a", builders.market_input(session).id, resolvable_at=at(500))
        session.commit()
    code, _, errors = command(*PERIOD)
    assert code == 1
    assert errors.startswith("1 predictions of ")
    assert "choose an earlier --to" in errors


def test_ctrl_c_writes_nothing(scored: Engine, command: Rescore) -> None:
    before = row_counts(scored)
    code, _, errors = command(*PERIOD, "--scoring", "operators_scoring:stops")
    assert (code, errors) == (1, "stopped; nothing was written\n")
    assert row_counts(scored) == before


def test_kill_in_the_middle_leaves_nothing(scored: Engine, command: Rescore, tmp_path: Path, database_url: str) -> None:
    before = row_counts(scored)
    (tmp_path / "hanging.py").write_text(
        "import pathlib, time\n"
        "def score(prediction, ground_truth):\n"
        "    pathlib.Path('reached').touch()\n"
        "    time.sleep(60)\n"
    )
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": database_url, "FEED_SOURCE": "simulated"}
    program = "from coordinator_node.cli.main import run; run()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "rescore", *PERIOD, "--scoring", "hanging:score"], env=environ, cwd=tmp_path
    )
    limit = time.monotonic() + 30
    while not (tmp_path / "reached").exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert row_counts(scored) == before
    holders = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7204004"
    while one(scored, holders):
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert command(*PERIOD)[0] == 0
