"""An operator's own endpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from api_cases import KEY, ClientMaker
from structlog.testing import capture_logs

from coordinator_node.entities.errors import ConfigurationError

HELLO = """
from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter(prefix="/custom/hello", tags=["mine"])

class Greeting(BaseModel):
    text: str

@router.get("/{name}")
def hello(name: str) -> Greeting:
    return Greeting(text=f"hello {name}")

@router.post("")
def posted(greeting: Greeting) -> Greeting:
    return greeting
"""

CLASHES = """
from fastapi import APIRouter

router = APIRouter()

@router.get("/healthz")
def my_health() -> str: return "mine"

@router.get("/info/")
def my_info() -> str: return "mine"

@router.get("/docs")
def my_docs() -> str: return "mine"

@router.get("/reports/checkpoints/{name}/payload")
def my_payload(name: str) -> str: return "mine"

@router.get("/reports/checkpoints/c1/emission")
def my_emission() -> str: return "mine"

@router.put("/healthz")
def other_method() -> str: return "mine"

@router.get("/reports/checkpoints/{name}")
def by_id(name: str) -> str: return name
"""


def write(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return str(folder)


def test_every_file_with_a_router_is_mounted(client_of: ClientMaker, tmp_path: Path) -> None:
    folder = write(tmp_path, hello=HELLO, _private="raise RuntimeError", helper="router = 'none'", empty="")
    client = client_of(API_ROUTES_DIR=folder)
    assert client.rows("/custom/hello/Ada") == {"text": "hello Ada"}
    assert client.request("POST", "/custom/hello", json={"text": "x"}).json() == {"text": "x"}
    assert client.request("POST", "/custom/hello", json={}).status_code == 422
    assert "/custom/hello/{name}" in client.rows("/openapi.json")["paths"]


def test_custom_paths_have_their_tier(client_of: ClientMaker, tmp_path: Path) -> None:
    client = client_of(API_ROUTES_DIR=write(tmp_path, hello=HELLO), API_KEY=KEY)
    assert client.get("/custom/hello/Ada").status_code == 401
    assert client.get("/custom/hello/Ada", api_key=KEY).status_code == 200


@pytest.mark.parametrize("text", ["raise RuntimeError('no way')", "import no_such_module_anywhere", "def", "exit(0)"])
def test_a_file_that_fails_to_import_stops_the_worker_by_name(
    client_of: ClientMaker, tmp_path: Path, text: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"broken\.py cannot be imported: \w+(Error|Exit)"):
        client_of(API_ROUTES_DIR=write(tmp_path, broken=text))


def test_a_router_without_any_path_stops_the_worker_by_name(client_of: ClientMaker, tmp_path: Path) -> None:
    text = "from fastapi import APIRouter\nrouter = APIRouter()\n@router.get('')\ndef f() -> str: return ''"
    with pytest.raises(ConfigurationError, match=r"custom routes of .*odd\.py cannot be mounted"):
        client_of(API_ROUTES_DIR=write(tmp_path, odd=text))


def refused(logs: list[Any]) -> dict[str, str]:
    return {log["custom"]: log["earlier"] for log in logs if "clashes" in log["event"]}


def test_a_clash_is_refused_for_that_route_alone_and_names_both(client_of: ClientMaker, tmp_path: Path) -> None:
    with capture_logs() as logs:
        client = client_of(API_ROUTES_DIR=write(tmp_path, clashes=CLASHES))
    named = refused(logs)
    module, origin = "coordinator_node_custom_routes_clashes", tmp_path / "clashes.py"
    assert named[f"GET /healthz ({module}:my_health) of {origin}"] == (
        "GET /healthz (coordinator_node.api.routes.health:healthz)"
    )
    assert [custom.split(" (")[0] for custom in named] == [
        "GET /healthz",
        "GET /info/",
        "GET /docs",
        "GET /reports/checkpoints/{name}/payload",
        "GET /reports/checkpoints/c1/emission",
    ]
    assert client.rows("/healthz") == {"status": "ok"}
    assert client.get("/reports/checkpoints/c1/emission").status_code == 404
    assert client.get("/reports/checkpoints/latest").json() == {"detail": "there is no checkpoint yet"}
    assert client.request("PUT", "/healthz").json() == "mine"
    assert client.rows("/reports/checkpoints/c1") == "c1"
    assert "my_health" not in client.get("/openapi.json").text


def test_of_two_custom_routes_the_first_stays(client_of: ClientMaker, tmp_path: Path) -> None:
    other = HELLO.replace("hello {name}", "hi {name}")
    with capture_logs() as logs:
        client = client_of(API_ROUTES_DIR=write(tmp_path, a=HELLO, b=other))
    assert len(refused(logs)) == 2
    assert client.rows("/custom/hello/Ada") == {"text": "hello Ada"}


def test_nested_routers_are_looked_through(client_of: ClientMaker, tmp_path: Path) -> None:
    text = (
        "from fastapi import APIRouter\nrouter = APIRouter()\nnested = APIRouter()\n"
        "@nested.get('/leaderboard')\ndef mine() -> str: return 'mine'\n"
        "@nested.get('/mine')\ndef other() -> str: return 'mine'\n"
        "router.include_router(nested, prefix='/reports')\n"
    )
    with capture_logs() as logs:
        client = client_of(API_ROUTES_DIR=write(tmp_path, nest=text))
    assert [custom.split(" (")[0] for custom in refused(logs)] == ["GET /reports/leaderboard"]
    assert client.rows("/reports/leaderboard") == []
    assert client.rows("/reports/mine") == "mine"


@pytest.mark.usefixtures("named_by_environment")
def test_text_that_no_database_holds_is_the_senders_fault(client_of: ClientMaker, tmp_path: Path) -> None:
    """An endpoint that takes any text, and asks for it: the database answers, only not to this."""
    text = (
        "from fastapi import APIRouter\nfrom coordinator_node.db import DBModelRepository, create_session\n"
        "router = APIRouter()\n@router.get('/mine/{name}')\ndef mine(name: str) -> bool:\n"
        "    with create_session() as session:\n        return DBModelRepository(session).fetch(name) is not None\n"
    )
    client = client_of(API_ROUTES_DIR=write(tmp_path, mine=text))
    assert client.rows("/mine/a") is False
    answer = client.get("/mine/%00")
    assert (answer.status_code, answer.json()["detail"][:24]) == (422, "something in the request")


def test_dotted_paths_are_mounted(client_of: ClientMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, my_custom_routes=HELLO)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_custom_routes", raising=False)
    for path in ("my_custom_routes:router", "my_custom_routes"):
        assert client_of(API_ROUTES=path).rows("/custom/hello/Ada") == {"text": "hello Ada"}
    for wrong in ("my_custom_routes:hello", "my_custom_routes:nothing"):
        with pytest.raises(ConfigurationError, match=f"API_ROUTES: {wrong} is not an APIRouter"):
            client_of(API_ROUTES=wrong)
    with pytest.raises(ConfigurationError, match="API_ROUTES: no_such_module:router cannot be imported"):
        client_of(API_ROUTES="no_such_module:router")
