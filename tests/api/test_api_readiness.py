"""What /readyz and /metrics say of the engine behind the API."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_cases import KEY, NOW, Client, ClientMaker, checkpoint, model, prediction, report_app, stage, store
from prometheus_client.parser import text_string_to_metric_families
from report_rows import snapshot
from sqlalchemy import Engine, text

from coordinator_node.api import health_probe
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.migrations import head_revision
from coordinator_node.db.tables import BackfillJobRow, EngineStateRow, FeedIngestionStateRow, LeaderboardRow, ScoreRow
from coordinator_node.runtime.heartbeat import Heartbeat
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.checkpoint_periods import ANCHOR_KEY

Connect = Callable[[str], Engine]
SIMULATED = {"FEED_SOURCE": "simulated", "API_KEY": KEY}


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_probe, "FRESH_SECONDS", 0.0)


def beat(engine: Engine, *roles: str) -> list[Heartbeat]:
    hearts = [Heartbeat(engine, role) for role in roles]
    for heart in hearts:
        heart.report(PassResult({"rows": 3}))
        heart.beat()
    return hearts


def watermark(at: Any, **values: str) -> FeedIngestionStateRow:
    scope = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s", **values}
    return FeedIngestionStateRow(**scope, last_event_ts=at, updated_at=NOW)


def readiness(client: Client, status: int = 200) -> dict[str, Any]:
    answer = client.get("/readyz")
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def gauges(client: Client) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample's value by its name and its labels' values."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_all_that_there_should_be(client_of: ClientMaker, engine: Engine) -> None:
    hearts = beat(engine, "score", "feed", "predict", "report")
    store(engine, watermark(NOW - timedelta(seconds=2)))
    found = readiness(client_of(**SIMULATED))
    assert (found["status"], found["ready"], found["reasons"], found["warnings"]) == ("ready", True, [], [])
    assert found["database"] == "up"
    assert found["schema_revision"] == found["schema_head"] == head_revision()
    assert [worker["role"] for worker in found["workers"]] == ["feed", "predict", "report", "score"]
    assert {worker["worker_id"] for worker in found["workers"]} == {heart.worker_id for heart in hearts}
    for worker in found["workers"]:
        assert worker["alive"]
        assert 0 <= worker["beat_age_seconds"] < 15
        assert worker["last_pass"] == {"rows": 3}
        assert worker["last_pass_at"].endswith("+00:00")
    assert [(feed["subject"], feed["watermark_age_seconds"], feed["late"]) for feed in found["feeds"]] == [
        ("BTC", 2.0, False)
    ]
    assert found["backlog"] == {"due_predictions": 0, "oldest_due_seconds": 0.0}


def test_what_is_missing_is_said_and_reading_goes_on(client_of: ClientMaker, engine: Engine) -> None:
    beat(engine, "predict", "feed")
    stage(engine, "m1")
    store(engine, watermark(NOW - timedelta(hours=1)), watermark(NOW, subject="ETH", source="other"))
    store(engine, *(prediction("m1", NOW - timedelta(seconds=460 + n)) for n in range(3)), prediction("m1", NOW))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE worker_heartbeats SET beat_at = beat_at - interval '1 minute' WHERE role = 'feed'")
        )
    found = readiness(client_of(**SIMULATED, FEED_SUBJECTS="BTC,SOL"))
    assert (found["status"], found["ready"]) == ("degraded", True)
    assert found["reasons"] == [
        "no feed worker is alive",
        "no score worker is alive",
        "the simulated feed of BTC is 3600 s behind",
        "the simulated feed of SOL has brought nothing yet",
        "3 due predictions wait to be scored, the oldest for 402 s",
    ]
    assert [(feed["subject"], feed["late"]) for feed in found["feeds"]] == [("ETH", None), ("BTC", True)]
    assert found["backlog"] == {"due_predictions": 3, "oldest_due_seconds": 402.0}


def test_a_tournament_needs_no_feed(client_of: ClientMaker, engine: Engine) -> None:
    beat(engine, "predict", "score")
    assert readiness(client_of(CrunchConfig(mode="tournament"), **SIMULATED))["status"] == "ready"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", "the schema is at revision 0001 and this version needs"),
        ("UPDATE alembic_version SET version_num = '9999'", "the schema is at revision 9999 and this version needs"),
        ("DROP TABLE alembic_version", "the database has no schema: run `coordinator-node migrate`"),
    ],
)
def test_a_schema_of_another_version_is_not_ready(
    client_of: ClientMaker, engine: Engine, change: str, reason: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text(change))
    client = client_of(**SIMULATED)
    found = readiness(client, 503)
    assert (found["status"], found["ready"], len(found["reasons"])) == ("unready", False, 1)
    assert found["reasons"][0].startswith(reason)
    assert gauges(client)["coordinator_schema_current"] == {(): 0.0}


def test_a_database_that_is_silent(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_probe, "PROBE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = Client(report_app(connect(f"postgresql+psycopg://u:secret@127.0.0.1:{port}/d")))
        found = readiness(client, 503)
        assert gauges(client)["coordinator_database_up"] == {(): 0.0}
        client.close()
    assert found["reasons"] == ["the database does not answer"]
    assert found["database"] == "down"
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("variables", "warnings"),
    [
        ({}, ["API_KEY is not set: everybody who reaches the API may read and write"]),
        ({"NETWORK": "mainnet-beta"}, ["API_KEY is not set: everybody who reaches the API may read"]),
        ({"API_KEY": KEY}, []),
    ],
)
def test_an_open_api_is_said(client_of: ClientMaker, variables: dict[str, str], warnings: list[str]) -> None:
    client = client_of(**variables)
    assert readiness(client)["warnings"] == warnings
    assert gauges(client)["coordinator_api_key_set"] == {(): float(not warnings)}


def test_whoever_asks_at_once_or_soon_after_is_answered_from_one_look(
    client_of: ClientMaker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_probe, "FRESH_SECONDS", 3600.0)
    client = client_of(**SIMULATED)
    assert readiness(client)["workers"] == []
    beat(engine, "score")
    assert readiness(client)["workers"] == []


def test_what_waits_is_a_metric_of_its_stage(client_of: ClientMaker, engine: Engine) -> None:
    stage(engine, "m1")
    scored = prediction("m1", NOW - timedelta(hours=1), status="SCORED", id="scored")
    store(engine, scored, *(prediction("m1", NOW - timedelta(seconds=100 + n)) for n in range(3)))
    store(
        engine,
        ScoreRow(prediction_id="scored", generation=1, snapshot_state="PENDING", scored_at=NOW - timedelta(seconds=9)),
        LeaderboardRow(created_at=NOW - timedelta(seconds=5)),
        checkpoint("c1", NOW - timedelta(days=15)),
        watermark(NOW - timedelta(seconds=4)),
    )
    store(
        engine,
        BackfillJobRow(
            source="simulated", subject="BTC", kind="tick", granularity="1s", start_ts=NOW, end_ts=NOW, created_at=NOW
        ),
    )
    found = gauges(client_of(**SIMULATED))
    assert found["coordinator_stage_backlog"] == {
        ("score",): 3.0,
        ("predict",): 0.0,
        ("snapshot",): 1.0,
        ("backfill",): 1.0,
        ("checkpoint",): 2.0,
    }
    lag = found["coordinator_stage_lag_seconds"]
    assert {stage: lag[(stage,)] for stage in ("score", "snapshot", "leaderboard", "feed")} == {
        "score": 42.0,
        "snapshot": 9.0,
        "leaderboard": 5.0,
        "feed": 4.0,
    }
    assert lag[("checkpoint",)] == timedelta(days=8).total_seconds()
    assert found["coordinator_feed_watermark_age_seconds"] == {("1s", "tick", "simulated", "BTC"): 4.0}


def test_requests_are_counted_by_route_and_not_by_path(client_of: ClientMaker, engine: Engine) -> None:
    store(engine, model("m1"))
    client = client_of(API_KEY=KEY)
    before = gauges(client)["coordinator_api_requests_total"]
    for number in range(3):
        client.get(f"/reports/checkpoints/{number}/payload", api_key=KEY)
        client.get(f"/nowhere/{number}")
    client.get("/reports/checkpoints/1/payload")
    after = gauges(client)["coordinator_api_requests_total"]
    grown = {labels: value - before.get(labels, 0) for labels, value in after.items() if value != before.get(labels)}
    assert grown == {
        ("GET", "/reports/checkpoints/{checkpoint_id}/payload", "404"): 3.0,
        ("GET", "none", "404"): 3.0,
        ("GET", "none", "401"): 1.0,
        ("GET", "/metrics", "200"): 1.0,
    }


def test_a_request_that_failed_is_counted_under_its_route(client_of: ClientMaker, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from fastapi import APIRouter\nrouter = APIRouter()\n@router.get('/own/{number}')\ndef own(number: int):\n"
        "    return 1 / 0\n"
    )
    client = client_of(API_ROUTES_DIR=str(tmp_path))
    assert client.get("/own/7").status_code == 500
    assert gauges(client)["coordinator_api_requests_total"][("GET", "/own/{number}", "500")] == 1.0


@pytest.mark.parametrize(
    ("variables", "anchor", "days"),
    [({}, None, 3), ({"CHECKPOINT_START": "2026-02-12T12:00:00Z"}, None, 10), ({}, NOW - timedelta(days=9), 2)],
)
def test_the_first_checkpoint_can_be_overdue_too(
    client_of: ClientMaker, engine: Engine, variables: dict[str, str], anchor: datetime | None, days: int
) -> None:
    begin = NOW - timedelta(days=10)
    store(engine, model("m1"), snapshot(0, "m1", period_start=begin, period_end=begin), snapshot(1, "m1"))
    if anchor is not None:
        value = {"start": anchor.isoformat(), "follows": False}
        store(engine, EngineStateRow(key=ANCHOR_KEY, value_jsonb=value, updated_at=NOW))
    found = gauges(client_of(**variables))
    assert found["coordinator_stage_lag_seconds"][("checkpoint",)] == timedelta(days=days).total_seconds()
    assert found["coordinator_stage_backlog"][("checkpoint",)] == days // 7 + 1
