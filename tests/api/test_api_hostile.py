"""What nobody should send: a clear 4xx for each, and the server goes on answering."""

from __future__ import annotations

import http.client
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from api_cases import KEY, NOW, PATIENCE_SECONDS, RunningServer, checkpoint, report_app, running, store
from sqlalchemy import Engine

from coordinator_node.api import connections
from coordinator_node.api.connections import allow_many_connections

MIB = 1024 * 1024
SLOW = 1_000

TRAVERSALS = (
    "/data/backfill/../../../../etc/passwd",
    "/data/backfill/simulated/BTC/tick/1s/..%2F..%2F..%2F..%2F..%2Fetc%2Fpasswd",
    "/data/backfill/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/data/backfill/simulated/BTC/tick/1s/....//....//etc/passwd",
    "/data/backfill/simulated/BTC/tick/..%5c..%5c/2026-01-01.parquet",
    "/reports/../../etc/passwd",
)
BAD_PARAMETERS = (
    "/reports/predictions?projectIds=%00",
    "/reports/snapshots?model_id=a%00b",
    "/reports/feeds/tail?source=%00",
    "/reports/checkpoints/%00/payload",
    "/reports/snapshots?limit=1001",
    "/reports/snapshots?limit=0",
    "/reports/snapshots?limit=-1",
    "/reports/snapshots?limit=99999999999999999999999999999999",
    "/reports/snapshots?limit=1e3",
    "/reports/snapshots?limit=NaN",
    "/reports/snapshots?since=0001-01-01T00:00:00%2B23:59",
    "/reports/snapshots?until=9999-12-31T23:59:59-23:59",
    "/reports/snapshots?since=0001-01-01",
    "/reports/snapshots?since=1969-12-31T23:59:59",
    "/reports/snapshots?until=2200-01-01T00:00:00",
    "/reports/predictions?end=9999-12-31",
    "/reports/predictions?start=1e400",
    "/reports/predictions?start=99999999999999",
    "/reports/predictions?start=2026-02-30",
    "/reports/predictions?end=tomorrow",
    "/reports/snapshots?limit=1&limit=1000",
    "/reports/snapshots?model_id=a&model_id=b",
    "/reports/predictions?start=2026-01-01&start=2026-01-02",
    "/reports/leaderboard?include_ensembles=perhaps",
)


@pytest.fixture
def server(engine: Engine) -> Iterator[RunningServer]:
    store(engine, checkpoint("c1", NOW))
    with running(report_app(engine)) as started:
        yield started


def answers(server: RunningServer) -> bool:
    status, _, body = server.request("GET", "/reports/checkpoints/latest")
    return status == 200 and b'"c1"' in body


def test_what_is_no_path_and_no_parameter_is_refused(server: RunningServer) -> None:
    for target in TRAVERSALS:
        status, _, body = server.request("GET", target)
        assert status in (404, 422), target
        assert b"root:" not in body
    for target in BAD_PARAMETERS:
        status, headers, body = server.request("GET", target)
        assert status in (404, 422), target
        assert headers["content-type"] == "application/json"
        assert body.startswith(b'{"detail":')
    for naive in ("2026-01-01T00:00:00", "2026-01-01", "1767225600", "1970-01-01", "2199-12-31T23:59:59"):
        assert server.request("GET", f"/reports/snapshots?since={naive}")[0] == 200
    assert server.request("GET", "/reports/predictions?projectIds=a&projectIds=b,c")[0] == 200
    assert answers(server)


def test_a_repeated_parameter_is_named(server: RunningServer) -> None:
    _, _, body = server.request("GET", "/reports/snapshots?limit=1&limit=2")
    assert body == b'{"detail":[{"loc":["query","limit"],"msg":"may be given only once","type":"repeated"}]}'


@pytest.mark.parametrize("path", ["/reports/checkpoints/c1/confirm", "/reports/backfill", "/nowhere"])
def test_a_body_of_10_mb_is_refused_unread(server: RunningServer, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {10 * MIB}\r\n\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    status, _, body = server.request("POST", path, body=b"x" * 10 * MIB)
    assert (status, body) == (413, b'{"detail":"the body is larger than 1048576 bytes"}')
    assert answers(server)


def test_a_body_that_does_not_say_its_length_is_cut_off(server: RunningServer) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as client:
        head = "POST /reports/checkpoints/c1/confirm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        for _ in range(17):
            client.sendall(chunk)
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert answers(server)


def test_a_body_may_have_1_mib_and_not_a_byte_more(server: RunningServer) -> None:
    for path in ("/reports/checkpoints/c1/confirm", "/nowhere/tournament/", "/tournament"):
        assert server.request("POST", path, body=b" " * (MIB + 1))[0] == 413, path
        assert server.request("POST", path, body=b" " * MIB)[0] in (404, 422), path


ODD_BODIES = {
    "nested without end": b'{"tx_hash":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a number without end": b'{"tx_hash":' + b"9" * 5_000 + b"}",
    "another encoding": b"\xff\xfe{\x00",
    "no JSON": b"{",
    "NaN": b'{"tx_hash": NaN}',
    "NUL": b'{"tx_hash": "a\\u0000"}',
    "half a character": b'{"tx_hash": "\\ud800"}',
    "a list": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_a_body_that_cannot_be_read_is_bad_input(server: RunningServer, name: str) -> None:
    for path in ("/reports/checkpoints/c1/confirm", "/reports/backfill"):
        status, _, body = server.request("POST", path, {"Content-Type": "application/json"}, ODD_BODIES[name])
        assert status == 422, body
        assert json.loads(body)["detail"][0]["loc"][0] == "body"
    assert answers(server)


def test_the_type_of_a_body_may_be_left_out_but_not_be_another(server: RunningServer) -> None:
    confirm = "/reports/checkpoints/c1/confirm"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = server.request("POST", confirm, form, b'{"tx_hash": "t"}')
    assert (status, b"sent with Content-Type: application/json" in body) == (422, True)
    assert server.request("POST", confirm, body=b'{"tx_hash": "t"}')[0] == 200


def test_what_is_no_http_is_refused(server: RunningServer) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as client:
            client.sendall(nonsense)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'\r\n\r\n{"detail": "this is no HTTP request"}')
    assert answers(server)


def test_a_thousand_slow_connections_do_not_keep_others_out(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_many_connections()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * SLOW + 500:
        pytest.skip("this system allows too few open files to hold both ends of 1,000 connections")
    monkeypatch.setattr(connections, "HEAD_SECONDS", PATIENCE_SECONDS)
    with ExitStack() as open_ones:
        for number in range(SLOW):
            slow = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS)
            open_ones.enter_context(slow)
            slow.sendall(b"GET /reports/leaderboard HTTP/1.1\r\nX-Slow: "[: 1 + number % 40])
        for _ in range(3):
            assert answers(server)


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (b"", "HEAD_SECONDS"),
        (b"GET /healthz HT", "HEAD_SECONDS"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", "HEAD_SECONDS"),
        (b"POST /reports/backfill HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", "BODY_SECONDS"),
    ],
)
def test_a_request_that_does_not_arrive_ends_with_408(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, sent: bytes, limit: str
) -> None:
    monkeypatch.setattr(connections, limit, 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(sent)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"detail": "the request did not arrive in time"}')
    monkeypatch.undo()
    assert answers(server)


def test_a_connection_that_is_kept_alive_serves_more_than_one_request(server: RunningServer) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    for _ in range(3):
        kept.request("GET", "/info")
        assert kept.getresponse().read().startswith(b'{"crunch_id"')
        assert kept.sock is not None
    kept.close()


def test_a_slash_too_many_is_answered_where_it_is_so_that_no_redirect_loses_the_key(engine: Engine) -> None:
    secret = KEY.replace(" ", "%20")
    with running(report_app(engine, API_KEY=KEY, API_READ_AUTH="true")) as server:
        for path in ("/reports/predictions/", "/reports/predictions//"):
            assert server.request("GET", f"{path}?limit=5")[0] == 401
            status, headers, body = server.request("GET", f"{path}?limit=5&api_key={secret}&x=%2B")
            assert (status, body) == (200, b"[]")
            assert "location" not in headers
        for nowhere in ("/", "//", "/nowhere/", "/nowhere"):
            assert server.request("GET", nowhere, {"X-API-Key": KEY})[0] == 404
