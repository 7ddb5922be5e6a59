"""The endpoints of tournament mode."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_cases import KEY, NOW, Client, ClientMaker, model, prediction, store
from sqlalchemy import Engine, text
from sqlmodel import Session, select
from structlog.testing import capture_logs

from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig
from coordinator_node.db.tables import PredictionSlotRow
from coordinator_node.services.tournament_predict import TournamentPredictService

ROUNDS = "/tournament/rounds"
CONFIG = CrunchConfig(
    mode="tournament", call_method=CallMethodConfig(args=[CallMethodArg(name="features", type="JSON")])
)
FEATURES = [{"x": 1}, {"x": 2}, {"x": 3}]

# What every workspace of 0.1.84 has in this place.
OLDER_ROUTER = """
from typing import Any
from fastapi import APIRouter
from coordinator_node.services.tournament_predict import TournamentPredictService

router = APIRouter(prefix="/tournament", tags=["tournament"])

@router.post("/rounds/{round_id}/inference")
async def inference(round_id: str, body: dict[str, Any]) -> int:
    return len(await TournamentPredictService(model_repository=None).run_inference(round_id, body["features"]))

@router.get("/mine/{round_id}")
def mine(round_id: str) -> dict[str, Any]:
    return TournamentPredictService().get_round_status(round_id)

@router.post("/mine/{round_id}")
async def ask_mine(round_id: str, body: dict[str, Any]) -> int:
    return len(await TournamentPredictService().run_inference(round_id, body["features"]))
"""


@pytest.fixture
def client(client_of: ClientMaker, engine: Engine) -> Client:
    """A client of a tournament in which two models are known."""
    store(engine, model("a", presence="PRESENT"), model("b", presence="AWAY", presence_since=NOW))
    return client_of(CONFIG)


def post(client: Client, path: str, body: Any) -> httpx.Response:
    return client.request("POST", f"{ROUNDS}/{path}", content=body if isinstance(body, bytes) else json.dumps(body))


def answer(engine: Engine, **statuses: list[str]) -> None:
    """What the predict workers do: predictions of these statuses for each model, and no open calls."""
    with Session(engine) as session:
        slots = session.exec(select(PredictionSlotRow).order_by(text("feature_index"))).all()
        for model_id, of_rows in statuses.items():
            for slot, status in zip(slots, of_rows, strict=True):
                values = {"prediction_config_id": None, "scope_key": "round:r1", "slot_id": slot.id, "status": status}
                session.add(prediction(model_id, NOW, input_id=slot.input_id, **values))
        session.connection().execute(text("UPDATE slot_calls SET closed_at = now(), epoch = 1"))
        session.commit()


def test_a_round_from_its_features_to_its_truth(client: Client, engine: Engine) -> None:
    answered = post(client, "r1/inference", {"features": FEATURES})
    queued = {
        "round_id": "r1",
        "status": "QUEUED",
        "created_at": "2026-03-01T12:00:00+00:00",
        "features": 3,
        "models": 2,
        "expected": 6,
        "predictions": 0,
        "pending": 0,
        "scored": 0,
        "failed": 0,
        "absent": 0,
        "truths": 0,
    }
    assert (answered.status_code, answered.json()) == (202, queued)
    assert client.rows(f"{ROUNDS}/r1/status") == queued
    answered = post(client, "r1/score", {"ground_truth": {"y": 1}})
    assert (answered.status_code, answered.json()["detail"][:30]) == (409, "round 'r1' is still being call")
    answer(engine, a=["PENDING", "FAILED", "PENDING"], b=["ABSENT"] * 3)
    done = {**queued, "status": "CALLED", "predictions": 6, "pending": 2, "failed": 1, "absent": 3}
    assert client.rows(f"{ROUNDS}/r1/status") == done
    answered = post(client, "r1/score", {"ground_truth": {"0": {"y": 1}, "2": {"y": 3}}})
    assert (answered.status_code, answered.json()) == (200, {**done, "status": "SCORING", "truths": 2})
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT actuals_jsonb, status FROM inputs ORDER BY raw_data_jsonb->'x'")).all()
        due = connection.execute(text("SELECT count(*) FROM predictions WHERE resolvable_at = :now"), {"now": NOW})
        assert due.scalar_one() == 4
    assert stored == [({"y": 1}, "RESOLVED"), (None, "RECEIVED"), ({"y": 3}, "RESOLVED")]
    assert post(client, "r1/score", {"ground_truth": [{"y": 1}, {"y": 2}, {"y": 3}]}).json()["truths"] == 3
    assert post(client, "r1/score", {"ground_truth": [{"y": 1}, None, None]}).status_code == 200
    other = post(client, "r1/score", {"ground_truth": {"y": 1}})
    assert other.status_code == 409
    assert other.json()["detail"] == "round 'r1': feature row 1 has another ground truth already, and keeps it"


def test_a_round_is_asked_once_and_only_of_models(client: Client, engine: Engine) -> None:
    assert post(client, "r1/inference", {"features": FEATURES}).status_code == 202
    again = post(client, "r1/inference", {"features": FEATURES})
    assert (again.status_code, again.json()["detail"][:28]) == (409, "round 'r1' exists already; a")
    with engine.begin() as connection:
        long_ago = {"at": NOW - timedelta(days=2)}
        connection.execute(text("UPDATE models SET presence = 'AWAY', presence_since = :at"), long_ago)
    nobody = post(client, "r2/inference", {"features": FEATURES})
    assert nobody.status_code == 409
    assert "no model is known" in nobody.json()["detail"]


def test_a_round_that_there_is_not(client: Client) -> None:
    assert client.get(f"{ROUNDS}/r9/status").json() == {"detail": "there is no round 'r9'"}
    assert client.get(f"{ROUNDS}/r9/status").status_code == 404
    assert post(client, "r9/score", {"ground_truth": {"y": 1}}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"features": []}',
        b'{"features": {"x": 1}}',
        b'{"features": [1]}',
        b'{"features": [{"x": NaN}]}',
        b'{"features": [{"x": 1e999}]}',
        b'{"features": [{"x": "a\\u0000b"}]}',
        b'{"features": [{"x": "\\ud800"}]}',
        b'{"features": [{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}]}",
        b'{"features": [' + b",".join([b"{}"] * 10_001) + b"]}",
    ],
    ids=lambda body: body[:40].decode(),
)
def test_features_that_are_none(client: Client, engine: Engine, body: bytes) -> None:
    answered = post(client, "r1/inference", body)
    assert answered.status_code == 422, answered.text
    assert len(answered.content) < 1000
    assert client.get(f"{ROUNDS}/r1/status").status_code == 404


def test_a_body_may_have_16_mib_and_not_a_byte_more(client: Client) -> None:
    body = json.dumps({"features": FEATURES}).encode().ljust(16 * 1024 * 1024)
    assert post(client, "r1/inference", body + b" ").status_code == 413
    assert post(client, "r1/inference", body).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        b'{"ground_truth": 1}',
        b'{"ground_truth": [1, 2, 3]}',
        b'{"ground_truth": [{"y": 1}]}',
        b'{"ground_truth": {"0": {"y": 1}, "z": 2}}',
        b'{"ground_truth": {"3": {"y": 1}}}',
        b'{"ground_truth": {"y": Infinity}}',
        b'{"ground_truth": {}}',
        b'{"truth": {}}',
    ],
)
def test_a_truth_that_is_none(client: Client, engine: Engine, body: bytes) -> None:
    post(client, "r1/inference", {"features": FEATURES})
    answer(engine, a=["PENDING"] * 3)
    answered = post(client, "r1/score", body)
    assert answered.status_code == 422, answered.text
    assert client.rows(f"{ROUNDS}/r1/status")["truths"] == 0


@pytest.mark.parametrize("round_id", ["x" * 201, "a%00b"])
def test_ids_that_cannot_be_stored(client: Client, round_id: str) -> None:
    assert post(client, f"{round_id}/inference", {"features": FEATURES}).status_code == 422
    assert client.get(f"{ROUNDS}/{round_id}/status").status_code == 422


def test_everything_needs_the_key(client_of: ClientMaker, engine: Engine) -> None:
    store(engine, model("a", presence="PRESENT"))
    client = client_of(CONFIG, API_KEY=KEY)
    assert client.get(f"{ROUNDS}/r1/status").status_code == 401
    assert post(client, "r1/inference", {"features": FEATURES}).status_code == 401
    assert client.get(f"{ROUNDS}/r1/status", api_key=KEY).status_code == 404


def test_only_a_config_that_asks_for_it_has_it(client_of: ClientMaker) -> None:
    paths = {f"{ROUNDS}/{{round_id}}/{what}" for what in ("inference", "score", "status")}
    assert not paths & client_of().rows("/openapi.json")["paths"].keys()
    asking = client_of(CrunchConfig(predict_service_class=TournamentPredictService))
    described = asking.rows("/openapi.json")["paths"]
    assert paths <= described.keys()
    body = described[f"{ROUNDS}/{{round_id}}/inference"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["features"]["maxItems"] == 10_000


@pytest.mark.usefixtures("named_by_environment")
def test_the_built_in_endpoints_win_over_those_of_an_older_workspace(
    client_of: ClientMaker, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tournament.py").write_text(OLDER_ROUTER)
    monkeypatch.setattr("coordinator_node.services.tournament_predict.load_config", lambda: CONFIG)
    store(engine, model("a", presence="PRESENT"))
    with capture_logs() as logs:
        client = client_of(CONFIG, API_ROUTES_DIR=str(tmp_path))
    refused = [log for log in logs if log["event"].startswith("custom route refused")]
    assert [log["custom"].split()[:2] for log in refused] == [["POST", f"{ROUNDS}/{{round_id}}/inference"]]
    assert post(client, "r1/inference", {"features": FEATURES}).status_code == 202
    assert client.rows("/tournament/mine/r1")["features"] == 3
    assert client.get("/tournament/mine/r9").status_code == 404
    nobody = client.request("POST", "/tournament/mine/r2", json={"features": FEATURES})
    assert nobody.status_code == 503
    assert nobody.json() == {
        "detail": "round 'r2' was not queued: no predict worker is alive that would call the models"
    }


@pytest.mark.usefixtures("named_by_environment")
def test_an_older_workspace_without_tournament_mode_keeps_its_endpoints(client_of: ClientMaker, tmp_path: Path) -> None:
    (tmp_path / "tournament.py").write_text(OLDER_ROUTER)
    with capture_logs() as logs:
        client = client_of(API_ROUTES_DIR=str(tmp_path))
    assert not any(log["event"].startswith("custom route refused") for log in logs)
    answered = client.request("POST", f"{ROUNDS}/r1/inference", json={"features": FEATURES})
    assert answered.status_code == 409
    assert "mode='tournament'" in answered.json()["detail"]


def test_the_service_runs_until_it_is_cancelled() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(TournamentPredictService().run(), 0.05))
