"""The ensemble signals that the scaffold brings, disabled."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_cases import KEY, NOW, Client, ClientMaker, model, prediction, schedule, stage, store
from sqlalchemy import Engine

FILE = Path(__file__).parents[2] / "scaffold" / "node" / "api" / "ensemble_signals.py.disabled"
ALL, TOP = "__ensemble_all__", "__ensemble_top_3__"


def said(model_id: str, at: datetime, value: float, scope_key: str = "BTC-60", **values: Any) -> Any:
    output = {"inference_output_jsonb": {"value": value}, "scope_key": scope_key}
    return prediction(model_id, at, **{**output, **values})


@pytest.fixture
def enabled(tmp_path: Path) -> str:
    shutil.copy(FILE, tmp_path / "ensemble_signals.py")
    return str(tmp_path)


@pytest.fixture
def client(client_of: ClientMaker, engine: Engine, enabled: str) -> Client:
    stage(engine, "m1", ALL, TOP)
    store(engine, model("__ensemble_"))
    minutes = [NOW - timedelta(minutes=n) for n in range(4)]
    store(
        engine,
        *(said(ALL, at, float(n), status="SCORED" if n else "PENDING") for n, at in enumerate(minutes)),
        said(ALL, minutes[1], 10.0, "ETH-60", scope_jsonb={"subject": "ETH"}),
        said(ALL, NOW + timedelta(minutes=1), 99.0, status="FAILED"),
        said("m1", NOW, 77.0),
    )
    return client_of(API_ROUTES_DIR=enabled)


def test_it_is_shipped_disabled(client_of: ClientMaker, tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path)
    assert client_of(API_ROUTES_DIR=str(tmp_path)).get("/signals/ensemble").status_code == 404


def test_the_newest_of_every_ensemble_and_scope(client: Client) -> None:
    rows = client.rows("/signals/ensemble")
    assert [(row["ensemble_name"], row["scope_key"], row["value"]) for row in rows] == [
        ("all", "BTC-60", 0.0),
        ("all", "ETH-60", 10.0),
    ]
    assert rows[0] == {
        "ensemble_name": "all",
        "model_id": ALL,
        "scope_key": "BTC-60",
        "subject": "BTC",
        "value": 0.0,
        "output": {"value": 0.0},
        "performed_at": "2026-03-01T12:00:00+00:00",
        "resolvable_at": "2026-03-01T12:01:00+00:00",
        "scored": False,
    }


def test_the_newest_of_one(client: Client) -> None:
    assert client.rows("/signals/ensemble/all") == client.rows("/signals/ensemble")
    assert client.rows("/signals/ensemble/top_3") == []
    for unknown in ("other", "m1", "%25", "all__"):
        answer = client.get(f"/signals/ensemble/{unknown}")
        assert answer.status_code == 404, unknown
        assert answer.json()["detail"].startswith("there is no ensemble")


def test_what_one_said_before(client: Client) -> None:
    def values(**asked: Any) -> list[float]:
        return [row["value"] for row in client.rows("/signals/ensemble/all/history", **asked)]

    assert values() == [3.0, 2.0, 1.0, 10.0, 0.0]
    assert values(limit=2)[-1:] == [0.0]
    assert len(values(limit=2)) == 2
    assert values(since="2026-03-01T11:59:00", until="2026-03-01T11:59:00") == [1.0, 10.0]
    assert client.get("/signals/ensemble/all/history", limit=0).status_code == 422
    assert client.get("/signals/ensemble/other/history").status_code == 404


def test_a_long_horizon_hides_no_shorter_one(client_of: ClientMaker, engine: Engine, enabled: str) -> None:
    """A day's horizon has thousands of predictions that speak of later moments than the newest of a minute's."""
    stage(engine, "m1", ALL)
    horizon = {"schedule_jsonb": {"prediction_interval_seconds": 15, "resolve_horizon_seconds": 86400}}
    store(engine, schedule("daily", **horizon), schedule("never", **horizon))
    day = {"scope_key": "BTC-day", "prediction_config_id": "daily", "horizon": timedelta(days=1)}
    second = timedelta(seconds=1)
    store(
        engine,
        *(said(ALL, NOW - n * 15 * second, float(n), **day) for n in range(1100)),
        *(said(ALL, NOW - n * 60 * second, float(n)) for n in range(3)),
    )
    client = client_of(API_ROUTES_DIR=enabled)
    newest = [(row["scope_key"], row["value"]) for row in client.rows("/signals/ensemble/all")]
    assert newest == [("BTC-60", 0.0), ("BTC-day", 0.0)]
    history = [(row["scope_key"], row["value"]) for row in client.rows("/signals/ensemble/all/history", limit=7)]
    one_by_one = [("BTC-day", float(n)) for n in (4, 3, 2, 1)]
    assert history == [("BTC-60", 1.0), *one_by_one, ("BTC-60", 0.0), ("BTC-day", 0.0)]


def test_they_are_read_like_other_reports(client_of: ClientMaker, enabled: str) -> None:
    assert client_of(API_ROUTES_DIR=enabled, API_KEY=KEY).get("/signals/ensemble").status_code == 200
    closed = client_of(API_ROUTES_DIR=enabled, API_KEY=KEY, API_READ_AUTH="true")
    assert closed.get("/signals/ensemble").status_code == 401
    assert closed.get("/signals/ensemble", api_key=KEY).status_code == 200
