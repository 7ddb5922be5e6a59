"""What the API says when its database is away, slow or busy."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from api_cases import Client, ClientMaker, checkpoint, prediction, report_app, running, stage, store
from fastapi.responses import StreamingResponse
from prometheus_client import generate_latest
from sqlalchemy import Engine, create_engine, make_url

from coordinator_node.api import sessions
from coordinator_node.api.context import Context
from coordinator_node.db.reports import predictions
from coordinator_node.entities.times import utc_now
from coordinator_node.runtime.metrics import REGISTRY

Connect = Callable[[str], Engine]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_healthz_with_a_database(client: Client) -> None:
    assert client.rows("/healthz") == {"status": "ok"}


def test_without_its_database_the_api_says_so(client: Client, engine: Engine, connect: Connect) -> None:
    assert client.get("/reports/models").status_code == 200
    with connect(
        make_url(engine.url).set(database="postgres").render_as_string(hide_password=False)
    ).connect() as other:
        other.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
            f"DROP DATABASE {engine.url.database} WITH (FORCE)"
        )
        try:
            health = client.get("/healthz")
            assert (health.status_code, health.json()) == (503, {"detail": "the database does not answer"})
            for path in ("/reports/models", "/reports/checkpoints/latest"):
                answer = client.get(path)
                assert (answer.status_code, answer.json()) == (
                    503,
                    {"detail": "the database does not answer; try again"},
                )
            assert client.get("/info").status_code == 200
        finally:
            other.exec_driver_sql(f"CREATE DATABASE {engine.url.database}")


def test_healthz_does_not_wait_for_a_silent_database(
    connect: Connect, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PROBE_SECONDS", 0.05)
    away = Client(report_app(connect(f"postgresql+psycopg://u:p@127.0.0.1:{silent_port}/d")))
    assert away.get("/healthz").status_code == 503
    assert away.get("/healthz").status_code == 503
    away.close()


def test_a_question_that_takes_too_long_is_ended(
    client_of: ClientMaker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_MILLISECONDS", {"ms": "50"})
    client = client_of()
    with engine.begin() as holder:
        holder.exec_driver_sql("LOCK TABLE models")
        answer = client.get("/reports/models")
    assert answer.status_code == 503
    assert "ask for a shorter range" in answer.json()["detail"]
    assert client.get("/reports/models").status_code == 200


def test_a_change_that_takes_too_long_is_ended_and_leaves_nothing(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_MILLISECONDS", {"ms": "50"})
    store(engine, checkpoint("c1"))
    with engine.begin() as holder:
        holder.exec_driver_sql("SELECT 1 FROM checkpoints FOR UPDATE")
        answer = client.request("POST", "/reports/checkpoints/c1/confirm", json={"tx_hash": "t1"})
    assert answer.status_code == 503
    assert client.get("/reports/checkpoints/latest").json()["status"] == "PENDING"


def test_when_all_connections_are_busy_it_says_so(database_url: str) -> None:
    one = create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with closing(Client(report_app(one))) as client:
        with one.connect():
            answer = client.get("/reports/models")
            assert (answer.status_code, "too many requests at once" in answer.json()["detail"]) == (503, True)
            assert client.get("/healthz").status_code == 200, "it asks on a connection of its own"
        assert client.get("/reports/models").status_code == 200
    one.dispose()


@pytest.mark.parametrize(
    ("code", "status", "said"), [("40001", 503, "the read replica changed"), ("XX000", 500, "internal error")]
)
def test_what_the_database_refuses_is_told_without_its_words(engine: Engine, code: str, status: int, said: str) -> None:
    app = report_app(engine)

    @app.get("/refused")
    def refused(context: Context) -> None:
        with context.database.reading() as connection:
            connection.exec_driver_sql(f"DO $$ BEGIN RAISE 'secret' USING ERRCODE = '{code}'; END $$")

    with closing(Client(app)) as client:
        answer = client.get("/refused")
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])
    assert said in answer.text
    assert "secret" not in answer.text


def test_an_answer_that_breaks_off_is_no_whole_one(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    app = report_app(engine)

    @app.get("/breaks-off")
    def breaks() -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            yield b"begun"
            raise RuntimeError("on purpose")

        return StreamingResponse(parts())

    with running(app) as server:
        with pytest.raises(http.client.IncompleteRead) as broken:
            server.request("GET", "/breaks-off")
        assert broken.value.partial == b"begun"
        assert server.request("GET", "/info")[0] == 200
    assert "a request failed: GET /breaks-off" in caplog.text
    counted = generate_latest(REGISTRY).decode()
    assert 'method="GET",route="/breaks-off",status="200"' in counted
    assert 'route="/breaks-off",status="500"' not in counted, "it is one answer"


def test_methods_that_nobody_knows_make_no_labels(client: Client) -> None:
    for method in ("BREW", "WHEN"):
        assert client.request(method, "/info").status_code == 405
    counted = client.get("/metrics").text
    assert 'method="other",route="/info",status="405"' in counted
    assert "BREW" not in counted


def test_of_many_who_ask_for_health_one_connection_is_made(
    connect: Connect, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PROBE_SECONDS", 0.2)
    made: list[str] = []
    dial = sessions.psycopg.AsyncConnection.connect

    async def noting(url: str, **options: Any) -> Any:
        made.append(url)
        return await dial(url, **options)

    monkeypatch.setattr(sessions.psycopg.AsyncConnection, "connect", noting)
    probe = sessions.DatabaseProbe(connect(f"postgresql+psycopg://u:p@127.0.0.1:{silent_port}/d"))

    async def ask() -> list[bool]:
        asking = [asyncio.create_task(probe.answers()) for _ in range(20)]
        await asyncio.sleep(0)
        # Whoever leaves takes the answer from nobody.
        asking.pop(0).cancel()
        return await asyncio.gather(*asking)

    assert asyncio.run(ask()) == [False] * 19
    assert len(made) == 1


def test_a_bug_shows_no_traceback_and_no_sql(client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(engine, "m1")
    store(engine, *(prediction("m1", utc_now()) for _ in range(2)))
    monkeypatch.setattr(predictions, "MOST_ROWS", -1)
    answer = client.get("/reports/predictions", limit=1)
    assert answer.status_code == 200
    answer = client.get("/reports/predictions", start="2026-01-01", end="2190-01-01")
    assert (answer.status_code, answer.json()) == (500, {"detail": "internal error; the log says more"})


def test_reading_cannot_write(engine: Engine) -> None:
    database = sessions.ReportDatabase(engine)
    with pytest.raises(Exception, match="read-only transaction"), database.reading() as connection:
        connection.exec_driver_sql("DELETE FROM models")
