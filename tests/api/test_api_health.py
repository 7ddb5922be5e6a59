"""What the API says when its database is away, slow or busy."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from api_cases import Client, ClientMaker, prediction, report_app, stage, store
from sqlalchemy import Engine, make_url

from coordinator_node.api import sessions
from coordinator_node.db.reports import predictions
from coordinator_node.entities.times import utc_now

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
