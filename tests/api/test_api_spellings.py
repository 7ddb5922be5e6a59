"""HEAD of what answers GET, and slashes at the end of a path."""

from __future__ import annotations

import http.client
from pathlib import Path

from api_cases import KEY, NOW, PATIENCE_SECONDS, ClientMaker, checkpoint, model, report_app, running, store
from prometheus_client import generate_latest
from sqlalchemy import Engine

from coordinator_node.runtime.metrics import REGISTRY

MINE = """
from fastapi import APIRouter, Response

router = APIRouter()

@router.get("/mine/")
def mine() -> str: return "mine"

@router.head("/mine/")
def head() -> Response: return Response(headers={"X-Own": "yes"})

@router.post("/mine/")
def made(body: dict) -> dict: return body
"""


def test_head_is_get_without_its_body(engine: Engine) -> None:
    store(engine, *(model(f"m{number}") for number in range(30)))
    paths = ("/healthz", "/info", "/reports/models", "/reports/leaderboard", "/reports/checkpoints/", "/openapi.json")
    unlike = ("date",)
    with running(report_app(engine)) as server:
        for path in paths:
            for sent in ({}, {"Accept-Encoding": "gzip"}):
                status, headers, body = server.request("HEAD", path, sent)
                whole = server.request("GET", path, sent)
                assert (status, body) == (200, b""), path
                assert {k: v for k, v in headers.items() if k not in unlike} == {
                    k: v for k, v in whole[1].items() if k not in unlike
                }, path
        assert int(headers["content-length"]) > 1000
        assert server.request("HEAD", "/reports/checkpoints/latest")[0] == 404
        assert server.request("HEAD", "/reports/snapshots?limit=0")[0] == 422
        assert server.request("HEAD", "/nowhere")[0] == 404
        assert server.request("HEAD", "/reports/checkpoints/c1/confirm")[0] == 405
    counted = generate_latest(REGISTRY).decode()
    assert 'coordinator_api_requests_total{method="HEAD",route="/reports/models",status="200"}' in counted


def test_head_of_what_has_no_end_ends(engine: Engine) -> None:
    app = report_app(engine)
    with running(app) as server:
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
        for _ in range(2):
            kept.request("HEAD", "/reports/events")
            answer = kept.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
            assert answer.getheader("content-type", "").startswith("text/event-stream")
        kept.request("GET", "/info")
        assert kept.getresponse().read().startswith(b'{"crunch_id"')
        kept.close()


def test_an_operators_routes_are_asked_as_they_are_spelled_first(client_of: ClientMaker, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    client = client_of(API_KEY=KEY, API_ROUTES_DIR=str(tmp_path))
    for path in ("/mine", "/mine/"):
        assert client.get(path).json() == "mine"
        assert client.request("HEAD", path).headers["x-own"] == "yes"
        refused = client.request("POST", path, json={"a": 1})
        made = client.request("POST", path, json={"a": 1}, params={"api_key": KEY})
        assert (refused.status_code, made.status_code, made.json()) == (401, 200, {"a": 1})


def test_a_write_goes_to_its_path_with_a_slash_too(client_of: ClientMaker, engine: Engine) -> None:
    store(engine, checkpoint("c1", NOW))
    client = client_of()
    answer = client.request("POST", "/reports/checkpoints/c1/confirm/", json={"tx_hash": "t1"})
    assert (answer.status_code, answer.json()["tx_hash"]) == (200, "t1")
