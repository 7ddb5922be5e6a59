"""Who gets in: every way to send a key, every tier, with and without API_READ_AUTH."""

from __future__ import annotations

import hmac
import logging
from contextlib import closing
from pathlib import Path

import pytest
from api_cases import KEY, NOW, Client, ClientMaker, checkpoint, report_app, running, store
from fastapi import Request
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from sqlalchemy import Engine
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from coordinator_node.api import auth
from coordinator_node.api.access import Tier
from coordinator_node.api.auth import TierGuard, warn_if_open
from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.services.tournament_predict import TournamentPredictService

PUBLIC = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/info",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/reports/leaderboard",
    "/reports/models",
    "/reports/feeds",
)
READ = ("/reports/predictions", "/reports/snapshots", "/reports/checkpoints", "/reports/emissions/latest", "/unknown")
ADMIN = ("/reports/checkpoints/latest", "/reports/checkpoints/1/payload", "/tournament/x", "/reports/backfill")

TOURNAMENT = CrunchConfig(predict_service_class=TournamentPredictService)
DECLARING = """
from fastapi import APIRouter
from coordinator_node.api.auth import ADMIN, PUBLIC, READ

router = APIRouter()
nested = APIRouter(prefix="/mine")

@nested.get("/public", dependencies=[PUBLIC])
@nested.get("/read", dependencies=[READ])
@nested.get("/admin", dependencies=[ADMIN])
def mine() -> str: return "mine"

router.include_router(nested)
"""

NONE: list[tuple[dict[str, str], dict[str, str]]] = [({}, {})]


def ways(key: str) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Headers and parameters that carry a key."""
    return [
        ({"X-API-Key": key}, {}),
        ({"Authorization": f"Bearer {key}"}, {}),
        ({"authorization": f"bearer  {key}"}, {}),
        ({}, {"api_key": key}),
    ]


def refused(client: Client, method: str, path: str, headers: dict[str, str], params: dict[str, str]) -> bool:
    answer = client.request(method, path, headers=headers, params=params)
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert method == "HEAD" or set(answer.json()) == {"detail"}
        assert KEY not in answer.text
    return answer.status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("read_auth", ["false", "true"])
def test_reading_needs_the_key_where_its_tier_says(client_of: ClientMaker, read_auth: str, method: str) -> None:
    closed = {PUBLIC: False, READ: read_auth == "true", ADMIN: True}
    client = client_of(API_KEY=KEY, API_READ_AUTH=read_auth)
    for paths, needs_key in closed.items():
        for path in paths:
            for headers, params in NONE + ways("wrong") + ways(KEY + "x") + ways(""):
                assert refused(client, method, path, headers, params) is needs_key, path
            for headers, params in ways(KEY):
                assert not refused(client, method, path, headers, params), path


def test_writing_is_never_public(client_of: ClientMaker) -> None:
    client = client_of(API_KEY=KEY, API_PUBLIC_PREFIXES="/")
    for path in (*PUBLIC, *READ, *ADMIN):
        for method in ("POST", "PATCH", "PUT", "DELETE"):
            assert refused(client, method, path, {}, {}), path
            assert not refused(client, method, path, {"X-API-Key": KEY}, {}), path


def test_a_right_key_beside_a_wrong_one_is_enough(client_of: ClientMaker) -> None:
    client = client_of(API_KEY=KEY)
    assert not refused(client, "GET", ADMIN[0], {"X-API-Key": "wrong"}, {"api_key": KEY})


def test_every_key_is_compared_and_none_by_how_much_of_it_is_right(
    client_of: ClientMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def noting(given: bytes, key: bytes) -> bool:
        assert key == KEY.encode()
        compared.append(given)
        return compare(given, key)

    monkeypatch.setattr(auth.hmac, "compare_digest", noting)
    client = client_of(API_KEY=KEY)
    for headers in (
        {"X-API-Key": KEY, "Authorization": "Bearer w2"},
        {"X-API-Key": "w1", "Authorization": "Bearer w2"},
    ):
        compared.clear()
        assert refused(client, "GET", ADMIN[0], headers, {"api_key": "w3"}) is (KEY not in headers.values())
        assert compared == [headers["X-API-Key"].encode(), b"w2", b"w3"]
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda given, key: False)
    assert refused(client, "GET", ADMIN[0], {"X-API-Key": KEY}, {}), "nothing else compares"


@pytest.mark.parametrize("sent", [f"Basic {KEY}", f"Token {KEY}", KEY, f"Bearer{KEY}"])
def test_another_scheme_than_bearer_carries_no_key(client_of: ClientMaker, sent: str) -> None:
    assert refused(client_of(API_KEY=KEY), "GET", ADMIN[0], {"Authorization": sent}, {})


def test_nothing_behind_the_door_sees_a_key_however_its_name_is_spelled(engine: Engine) -> None:
    app = report_app(engine, API_KEY=KEY)

    @app.get("/echo")
    def echo(request: Request) -> str:
        return str(request.url.query)

    secret = KEY.replace(" ", "%20")
    with running(app) as server:
        for name in ("api_key", "api%5Fkey", "%61pi_key"):
            for given in (secret, KEY.replace(" ", "+"), "wrong"):
                assert server.request("GET", f"/echo?a=%2F&{name}={given}&b=&{name}={given}")[2] == b'"a=%2F&b="'


def test_a_refusal_comes_before_the_body_is_looked_at(client_of: ClientMaker) -> None:
    client = client_of(API_KEY=KEY)
    answer = client.request("POST", "/reports/checkpoints/1/confirm", content=b"{")
    assert answer.status_code == 401


def test_without_a_key_all_is_open(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    assert client.get("/reports/checkpoints/latest").status_code == 200
    assert client.request("POST", "/reports/checkpoints/c1/confirm", json={"tx_hash": "t1"}).status_code == 200


def test_without_a_key_writing_on_the_mainnet_is_closed(client_of: ClientMaker, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    client = client_of(NETWORK="mainnet-beta")
    answer = client.request("POST", "/reports/checkpoints/c1/confirm", json={"tx_hash": "t1"})
    assert answer.status_code == 403
    assert "set API_KEY" in answer.json()["detail"]
    assert client.request("PATCH", "/reports/checkpoints/c1/status", json={"status": "SUBMITTED"}).status_code == 403
    assert client.get("/reports/checkpoints/latest").json()["status"] == "PENDING"
    client = client_of(NETWORK="mainnet-beta", API_KEY=KEY)
    answer = client.request(
        "POST", "/reports/checkpoints/c1/confirm", json={"tx_hash": "t1"}, headers={"X-API-Key": KEY}
    )
    assert answer.status_code == 200


def test_on_the_mainnet_without_a_key_every_method_that_may_write_is_closed(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(LISTENING)
    app = report_app(engine, TOURNAMENT, NETWORK="mainnet-beta", API_ROUTES_DIR=str(tmp_path))
    with running(app) as server:
        for path in ("/reports/backfill", "/tournament/rounds/r1/score", "/custom/live", "/nowhere"):
            for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
                assert server.request(method, path)[0] == 403, (method, path)
            for method in ("GET", "HEAD", "OPTIONS"):
                assert server.request(method, path)[0] in (404, 405), (method, path)
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{server.port}/custom/live")


def test_an_open_api_is_said_at_start() -> None:
    with capture_logs() as logs:
        warn_if_open(load_settings({"API_KEY": KEY}))
        assert not logs
        warn_if_open(load_settings({}))
    assert [log["log_level"] for log in logs] == ["warning"]
    assert "API_KEY is not set" in logs[0]["event"]


def test_a_browser_may_ask_from_anywhere_but_without_credentials(client_of: ClientMaker) -> None:
    preflight = {"Origin": "https://ui.example", "Access-Control-Request-Method": "PATCH"}
    client = client_of(API_KEY=KEY)
    asked = client.request("OPTIONS", "/reports/checkpoints/1/status", headers=preflight)
    refusal = client.request("GET", ADMIN[0], headers={"Origin": "https://ui.example"})
    assert asked.status_code == 200
    assert "PATCH" in asked.headers["access-control-allow-methods"]
    assert refusal.status_code == 401
    for answer in (asked, refusal):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


def test_named_origins_are_the_only_ones(client_of: ClientMaker) -> None:
    client = client_of(API_CORS_ORIGINS="https://ui.example,https://other.example")
    named = client.request("GET", "/info", headers={"Origin": "https://ui.example"})
    stranger = client.request("GET", "/info", headers={"Origin": "https://evil.example"})
    assert named.headers["access-control-allow-origin"] == "https://ui.example"
    assert named.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in stranger.headers


def test_a_page_of_another_origin_may_send_what_it_needs_and_read_what_it_is_told(client_of: ClientMaker) -> None:
    sent = "x-api-key,authorization,if-none-match"
    asking = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": sent}
    for origins in ("*", "https://ui.example"):
        client = client_of(API_KEY=KEY, API_CORS_ORIGINS=origins)
        asked = client.request("OPTIONS", ADMIN[0], headers={"Origin": "https://ui.example", **asking})
        assert (asked.status_code, asked.headers["access-control-allow-headers"]) == (200, sent)
        for path in ("/info", ADMIN[0]):
            answer = client.request("GET", path, headers={"Origin": "https://ui.example"})
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert {"ETag", "Link", "Retry-After", "WWW-Authenticate", "X-Next-Cursor"} == set(exposed)


def test_a_bug_is_answered_with_the_headers_of_all_answers(engine: Engine) -> None:
    app = report_app(engine)

    @app.get("/breaks")
    def breaks() -> None:
        raise RuntimeError("on purpose")

    with closing(Client(app)) as client:
        answer = client.request("GET", "/breaks", headers={"Origin": "https://ui.example"})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("wrong", ["https://ui.example/", "ui.example", "https://ui.example/app", "https://", "**"])
def test_an_origin_that_no_browser_sends_stops_the_worker_by_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"API_CORS_ORIGINS: .*is no origin such as"):
        load_settings({"API_CORS_ORIGINS": f"http://localhost:3000,{wrong}"})


def declared_tiers(route: RouteContext) -> list[Tier]:
    return [guard.call.tier for guard in route.dependant.dependencies if isinstance(guard.call, TierGuard)]


def test_every_built_in_route_declares_the_tier_that_its_path_has(engine: Engine) -> None:
    app = report_app(engine, TOURNAMENT)
    routes = [route for route in iter_route_contexts(app.routes) if isinstance(route.original_route, APIRoute)]
    assert len(routes) > 20
    for route in routes:
        assert declared_tiers(route) == [app.state.door.rules.tier_of_path(str(route.path))], route.path


@pytest.mark.parametrize(
    ("variables", "open_paths"),
    [
        ({}, {"/mine/public", "/mine/read", "/info"}),
        ({"API_READ_AUTH": "true"}, {"/info"}),
        ({"API_PUBLIC_PREFIXES": "/mine"}, {"/mine/public", "/mine/read", "/mine/admin", "/info"}),
        ({"API_PUBLIC_PREFIXES": "/mine/admin", "API_READ_AUTH": "true"}, {"/mine/admin"}),
        ({"API_ADMIN_PREFIXES": "/mine/public,/info"}, {"/mine/read", "/reports/checkpoints/latest"}),
        (
            {"API_PUBLIC_PREFIXES": "/reports/checkpoints/latest", "API_READ_AUTH": "true"},
            {"/reports/checkpoints/latest"},
        ),
    ],
)
def test_the_prefixes_of_the_settings_adjust_what_routes_declare(
    client_of: ClientMaker, tmp_path: Path, variables: dict[str, str], open_paths: set[str]
) -> None:
    (tmp_path / "mine.py").write_text(DECLARING)
    client = client_of(API_KEY=KEY, API_ROUTES_DIR=str(tmp_path), **variables)
    paths = ["/mine/public", "/mine/read", "/mine/admin", "/info", "/reports/checkpoints/latest"]
    assert {path for path in paths if not refused(client, "GET", path, {}, {})} == open_paths
    assert not any(refused(client, "GET", path, {"X-API-Key": KEY}, {}) for path in paths)


ODD_SPELLINGS = (
    "//reports/checkpoints/c1/payload",
    "/reports//checkpoints/c1/payload",
    "/reports/checkpoints//c1/payload",
    "/reports/leaderboard/../checkpoints/c1/payload",
    "/./reports/checkpoints/c1/payload",
    "/reports%2Fcheckpoints%2Fc1%2Fpayload",
    "/reports%2fcheckpoints/c1/payload",
    "/reports/%63heckpoints/c1/payload",
    "/reports/checkpoints/c1/payload/",
    "/reports/checkpoints/c1/payload//",
    "/reports/checkpoints/rewards/../c1/payload",
    "/reports/checkpoints/%2e%2e/checkpoints/c1/payload",
    "/healthz/..%2freports/checkpoints/c1/payload",
    "/reports\\checkpoints\\c1\\payload",
    "/reports/checkpoints/c1/payload;x=1",
    "/reports/checkpoints/c1/payload?x=/healthz",
    "http://elsewhere/reports/checkpoints/c1/payload",
)


def test_no_spelling_on_the_wire_gets_past_the_door(engine: Engine) -> None:
    store(engine, checkpoint("c1", NOW))
    with running(report_app(engine, API_KEY=KEY)) as server:
        for target in ODD_SPELLINGS:
            for method in ("GET", "HEAD", "OPTIONS"):
                status, _, body = server.request(method, target)
                assert status == 401, (method, target)
                assert b"crunch-address" not in body
            assert server.request("GET", target, {"X-API-Key": KEY})[0] in (200, 404), target
        assert server.request("GET", "/reports/checkpoints/c1/payload", {"X-API-Key": KEY})[0] == 200


def test_the_key_is_never_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    app = report_app(engine, API_KEY=KEY)

    @app.get("/breaks")
    def breaks() -> None:
        raise RuntimeError("on purpose")

    secret = KEY.replace(" ", "%20")
    with caplog.at_level(logging.DEBUG), running(app) as server:
        for path in ("/reports/predictions", "/reports/checkpoints/latest", "/nowhere", "/breaks"):
            for given in (secret, f"{secret}-wrong"):
                server.request("GET", f"{path}?api_key={given}&limit=x")
                server.request("GET", path, {"Authorization": f"Bearer {given}"})
        status, _, body = server.request("GET", f"/breaks?api_key={secret}")
    assert (status, body) == (500, b'{"detail":"internal error; the log says more"}')
    printed = capfd.readouterr()
    logged = caplog.text + printed.out + printed.err
    assert "on purpose" in logged
    for spelled in (KEY, secret, KEY.replace(" ", "+")):
        assert spelled not in logged


LISTENING = """
from fastapi import APIRouter, WebSocket

router = APIRouter()

@router.websocket("/custom/live")
async def live(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(str(socket.url))
    await socket.close()
"""


def test_a_websocket_needs_the_key_too_and_its_address_is_logged_without_it(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "live.py").write_text(LISTENING)
    secret = KEY.replace(" ", "%20")
    with (
        caplog.at_level(logging.DEBUG),
        running(report_app(engine, API_KEY=KEY, API_ROUTES_DIR=str(tmp_path))) as server,
    ):
        address = f"ws://127.0.0.1:{server.port}/custom/live?a=1"
        for wrong in ("", "&api_key=wrong-guess"):
            with pytest.raises(InvalidStatus, match="403"):
                connect(address + wrong)
        with connect(f"{address}&api_key={secret}") as socket:
            assert socket.recv() == address
    # The client of this test logs what it sends; what counts is what the server says.
    said = [record.getMessage() for record in caplog.records if record.name != "websockets.client"]
    logged = "".join(said)
    assert "/custom/live?a=1" in logged
    for spelled in (KEY, secret, "wrong-guess"):
        assert spelled not in logged


def test_what_browsers_are_told(client_of: ClientMaker) -> None:
    client = client_of(API_KEY=KEY)
    for path, status in (("/info", 200), ("/reports/backfill/jobs", 401), ("/nowhere", 404)):
        answer = client.get(path)
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
    page = client.get("/docs").headers
    assert page["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in page


@pytest.mark.parametrize("key", [" key", "key ", " ", "a\tb", "a\x00"])
def test_a_key_that_no_header_can_carry_stops_the_worker_by_name(key: str) -> None:
    with pytest.raises(ConfigurationError, match="API_KEY: must have no space at its ends") as refusal:
        load_settings({"API_KEY": key})
    assert repr(key) not in str(refusal.value)


def needs_key(client: Client) -> set[str]:
    """The operations that the page says need a key."""
    page = client.rows("/openapi.json")
    found = {
        f"{method} {path}"
        for path, operations in page["paths"].items()
        for method, operation in operations.items()
        if "security" in operation
    }
    assert bool(found) == ("securitySchemes" in page["components"])
    return found


def test_the_page_says_what_needs_the_key_here(client_of: ClientMaker, tmp_path: Path) -> None:
    assert needs_key(client_of()) == set()
    closed = needs_key(client_of(API_KEY=KEY))
    assert {"post /reports/backfill", "get /reports/checkpoints/latest"} <= closed
    assert not {"get /reports/leaderboard", "get /reports/predictions", "get /reports/checkpoints"} & closed
    (tmp_path / "mine.py").write_text(DECLARING)
    strict = needs_key(
        client_of(API_KEY=KEY, API_READ_AUTH="true", API_ADMIN_PREFIXES="/info", API_ROUTES_DIR=str(tmp_path))
    )
    assert {"get /info", "get /mine/admin", "get /mine/read", "get /reports/predictions"} <= strict
    assert not {"get /healthz", "get /reports/leaderboard"} & strict
    declared = needs_key(client_of(API_KEY=KEY, API_ROUTES_DIR=str(tmp_path)))
    assert {path for path in declared if "/mine" in path} == {"get /mine/admin"}


def test_what_a_key_was_shown_for_is_kept_by_no_shared_cache(client_of: ClientMaker, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from fastapi import APIRouter, Response\nrouter = APIRouter()\n"
        "@router.get('/mine')\n"
        "def mine(): return Response('x', headers={'Cache-Control': 'public, max-age=5, S-MaxAge=60'})\n"
    )
    client = client_of(API_KEY=KEY, API_ROUTES_DIR=str(tmp_path))
    assert client.get("/mine").headers["cache-control"] == "public, max-age=5, S-MaxAge=60"
    assert client.get("/mine", api_key=KEY).headers["cache-control"] == "private, max-age=5"
