"""Connections whose client sends or takes something without end, and those that may last."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_cases import NOW, PATIENCE_SECONDS, RunningServer, checkpoint, report_app, running, store, until
from sqlalchemy import Engine

from coordinator_node.api import connections, live
from coordinator_node.api.connections import PatientProtocol, allow_many_connections

MINE = """
import asyncio
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

router = APIRouter()

@router.get("/long")
def long(): return Response("x" * 50_000_000)

async def parts():
    yield "begun"
    await asyncio.sleep(3600)

@router.post("/begins")
def begins(): return StreamingResponse(parts())
"""


@pytest.fixture
def server(engine: Engine, tmp_path: Path) -> Iterator[RunningServer]:
    (tmp_path / "mine.py").write_text(MINE)
    store(engine, checkpoint("c1", NOW))
    with running(report_app(engine, API_ROUTES_DIR=str(tmp_path))) as started:
        yield started


def dial(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS)


def rest(client: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


HEAD = b"POST /reports/backfill HTTP/1.1\r\nHost: x\r\n"
ENDLESS = {
    "a line": (b"GET /", b"a" * 50_000),
    "a header": (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * 50_000),
    "headers": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n" * 5_000),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 5_000),
    "names of chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"a" * 50_000),
}


def test_a_head_without_end_is_cut_off(server: RunningServer) -> None:
    for name, (begin, more) in ENDLESS.items():
        with dial(server) as client:
            client.sendall(begin)
            answer = b""
            # It ends either way: by the answer, or, where more came than the server would read, without it.
            with contextlib.suppress(ConnectionError):
                for _ in range(2 * connections.MOST_HEAD_BYTES // len(more) + 10):
                    client.sendall(more)
                answer = rest(client)
        assert not answer or answer.startswith(b"HTTP/1.1 431 "), (name, answer[:100])
        assert server.request("GET", "/info")[0] == 200


def test_a_long_head_and_a_body_in_small_chunks_are_no_fault(server: RunningServer) -> None:
    confirmation = b'{"tx_hash":' + b" " * 900_000 + b'"t1"}'
    chunks = [confirmation[at : at + 500] for at in range(0, len(confirmation), 500)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = b"POST /reports/checkpoints/c1/confirm HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000
    with dial(server) as client:
        # Twice, because what is counted is counted anew for each request.
        for _ in range(2):
            client.sendall(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["tx_hash"]) == (200, "t1")


def test_an_answer_that_nobody_takes_is_given_up(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[PatientProtocol] = []
    lose = PatientProtocol.connection_lost
    monkeypatch.setattr(PatientProtocol, "connection_lost", lambda self, exc: (lost.append(self), lose(self, exc)))
    assert len(server.request("GET", "/long")[2]) == 50_000_000
    until(lambda: len(lost) == 1)
    monkeypatch.setattr(connections, "READ_SECONDS", 0.05)
    with dial(server) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: len(lost) == 2)
        with contextlib.suppress(ConnectionError):
            assert len(rest(client)) < 50_000_000


def test_whoever_goes_on_taking_an_answer_is_waited_for_no_more(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []
    wait = PatientProtocol._wait_for_reader
    monkeypatch.setattr(
        PatientProtocol, "_wait_for_reader", lambda self, seconds: (waits.append(seconds), wait(self, seconds))
    )
    with dial(server) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: waits == [connections.READ_SECONDS])
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert len(answer.read()) == 50_000_000
        until(lambda: waits[-1] is None)
        # That was no end of the connection, which forgets it too.
        client.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("nonsense", [False, True])
def test_an_answer_that_has_begun_is_ended_without_another_in_its_middle(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, nonsense: bool
) -> None:
    made: list[PatientProtocol] = []
    make = PatientProtocol.connection_made
    monkeypatch.setattr(PatientProtocol, "connection_made", lambda self, to: (made.append(self), make(self, to)))
    with dial(server) as client:
        client.sendall(b"POST /begins HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        answer = b""
        while not answer.endswith(b"begun\r\n"):
            piece = client.recv(65536)
            assert piece, answer
            answer += piece
        if nonsense:
            client.sendall(b"}no HTTP")
        else:
            # Not by a short BODY_SECONDS, within which a busy machine might not begin the answer.
            made[0].loop.call_soon_threadsafe(made[0]._expect, 0.0)
        answer += rest(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"begun\r\n")


def test_a_second_request_that_does_not_arrive_ends_with_408_too(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dial(server) as client:
        client.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.read().startswith(b'{"crunch_id"')
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
        client.sendall(b"GET /info HTTP/1.1\r\n")
        assert rest(client).startswith(b"HTTP/1.1 408 ")


def test_a_stream_lasts_longer_than_its_request_might_have_taken(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.02)
    with dial(server) as client:
        client.sendall(b"GET /reports/events HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while received.count(b": nothing new") < 10:
            piece = client.recv(65536)
            assert piece, received
            received += piece


def test_the_process_may_open_as_many_files_as_the_system_allows(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"soft": 1024, "hard": 4096}
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (limits["soft"], limits["hard"]))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda _, both: limits.update(soft=both[0], hard=both[1]))
    with running(report_app(engine)):
        until(lambda: limits["soft"] == 4096)
    for hard, soft in ((connections.resource.RLIM_INFINITY, connections.MOST_FILES), (10**6, connections.MOST_FILES)):
        limits.update(soft=1024, hard=hard)
        allow_many_connections()
        assert limits == {"soft": soft, "hard": hard}
    limits.update(soft=10**6, hard=10**6)
    allow_many_connections()
    assert limits == {"soft": 10**6, "hard": 10**6}, "it is never lowered"
