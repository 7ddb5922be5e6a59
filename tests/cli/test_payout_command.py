"""The payout command: three forms of one file, sums that are exact, and what it says when there is none."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import builders
import pytest
from builders import START, at
from sqlalchemy import Engine
from sqlmodel import Session
from typer.testing import CliRunner, Result

from coordinator_node.cli.main import app
from coordinator_node.entities.emission import emission_of

END = START + timedelta(seconds=60, microseconds=1_999)
END_SECONDS = int(START.timestamp()) + 60


@pytest.fixture(autouse=True)
def _database(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")


def payout(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["payout", *arguments], catch_exceptions=False)


def stored(engine: Engine, checkpoint_id: str, shares: list[int], **fields: Any) -> None:
    emission = {**emission_of(shares, "crunch", "gpu"), **fields.pop("emission", {})}
    meta = {"ranking": [{"model_id": f"m{place}"} for place in range(len(shares))], **fields.pop("meta", {})}
    with Session(engine) as session:
        values = {"id": checkpoint_id, "entries_jsonb": [emission], "meta_jsonb": meta, **fields}
        builders.checkpoint(session, at(0), END, **values)
        session.commit()


def test_the_prizes_are_those_of_the_api(engine: Engine) -> None:
    stored(engine, "c1", [500_000_000, 300_000_000, 200_000_000, 0])
    done = payout("c1", "--total", "7")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [
        {"prizeId": "c1-m0", "timestamp": END_SECONDS, "model": "m0", "prize": 4},
        {"prizeId": "c1-m1", "timestamp": END_SECONDS, "model": "m1", "prize": 2},
        {"prizeId": "c1-m2", "timestamp": END_SECONDS, "model": "m2", "prize": 1},
    ]
    assert payout("latest", "--total", "7").stdout == done.stdout


def test_jsonl_is_a_prize_a_line_at_the_periods_end_in_milliseconds(engine: Engine) -> None:
    stored(engine, "c1", [500_000_000, 300_000_000, 200_000_000])
    done = payout("c1", "--total", "1000000000000000000001", "--format", "jsonl")
    assert (done.exit_code, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert first == f'{{"timestamp": {END_SECONDS}001, "model": "m0", "prize": 500000000000000000001}}'
    assert [json.loads(line)["prize"] for line in rest] == [300_000_000_000_000_000_000, 200_000_000_000_000_000_000]


def test_cli_is_the_percentages_of_the_api(engine: Engine) -> None:
    stored(engine, "c1", [700_000_000, 300_000_000])
    done = payout("c1", "--total", "10", "--format", "cli")
    assert json.loads(done.stdout) == {
        "crunch": "crunch",
        "crunchEmission": {"m0": 70.0, "m1": 30.0},
        "computeProvider": {"gpu": 100.0},
        "dataProvider": {},
    }


@pytest.mark.parametrize(("form", "content"), [("prizes", "[]\n"), ("jsonl", "")])
def test_an_empty_period_is_said(engine: Engine, form: str, content: str) -> None:
    stored(engine, "c1", [], meta={"reason": "no model had a scored prediction"})
    done = payout("c1", "--total", "10", "--format", form)
    assert (done.exit_code, done.stdout) == (0, content)
    assert done.stderr == "checkpoint c1 pays nobody: no model had a scored prediction\n"


def test_what_is_retained_is_said(engine: Engine) -> None:
    stored(engine, "c1", [1_000_000_000], emission={"retained_pct": 650_000_000})
    done = payout("c1", "--total", "10")
    assert [prize["prize"] for prize in json.loads(done.stdout)] == [10]
    assert "c1 retains 65.0000000 % of the pool" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody", "--total", "1"], 1, "there is no checkpoint nobody"),
        (["unusable", "--total", "1"], 1, "checkpoint unusable holds no emission"),
        (["unusable"], 2, "--total"),
        (["unusable", "--total", "-1"], 2, "greater than or equal to 0"),
        (["unusable", "--total", "1.5"], 2, "valid integer"),
        (["unusable", "--total", "1", "--format", "csv"], 2, "csv"),
    ],
)
def test_what_cannot_be_paid_says_why(engine: Engine, arguments: list[str], code: int, said: str) -> None:
    stored(engine, "unusable", [], entries_jsonb=[])
    done = payout(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


def test_no_checkpoint_yet_and_no_database_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert payout("latest", "--total", "1").stderr == "there is no checkpoint latest\n"
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = payout("latest", "--total", "1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the database cannot be reached" in done.stderr
