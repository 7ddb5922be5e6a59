"""The server around the API: its start, its end, and the worker process."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from api_cases import PATIENCE_SECONDS, report_app, running, until, waiting_for_locks
from sqlalchemy import Engine, make_url

from coordinator_node.api import server as api_server
from coordinator_node.api.server import listen_on


def worker(url: str, port: int) -> subprocess.Popen[str]:
    """The report worker as it is started for real."""
    given = {"DATABASE_URL": url, "REPORT_API_HOST": "127.0.0.1", "REPORT_API_PORT": str(port), "LOG_FORMAT": "json"}
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator_node.workers.report_worker"],
        env={**os.environ, **given},
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_one_line_and_exit_code_1() -> None:
    with taken_port() as port:
        process = worker("postgresql://u:p@127.0.0.1:1/d", port)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 1
        last = errors.strip().splitlines()[-1]
        assert last.startswith(f"report worker: cannot listen on 127.0.0.1:{port}: Address already in use")
        assert "Traceback" not in errors


def test_a_host_that_is_not_ours_is_one_line_too() -> None:
    with pytest.raises(SystemExit, match=r"cannot listen on 192\.0\.2\.1:1234: Cannot assign requested address"):
        listen_on("192.0.2.1", 1234)


def test_the_worker_serves_until_sigterm_and_then_ends_cleanly(engine: Engine) -> None:
    with taken_port() as port:
        pass
    url = make_url(engine.url).set(drivername="postgresql").render_as_string(hide_password=False)
    process = worker(url, port)
    try:
        base = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or accepts(port))
        answer = httpx.get(f"{base}/healthz", timeout=PATIENCE_SECONDS)
        assert answer.json() == {"status": "ok"}
        assert "server" not in answer.headers
        httpx.get(f"{base}/reports/models?api_key=not-to-be-logged")
        until(lambda: beaten(engine) != [])
        assert beaten(engine) == [None], "what it counts is on its /metrics already"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "worker ended" in errors
    assert "not-to-be-logged" not in errors
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM worker_heartbeats").scalar_one() == 0


def beaten(engine: Engine) -> list[object]:
    """The figures that heartbeats carry."""
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT metrics_jsonb FROM worker_heartbeats").scalars())


def test_a_running_request_is_answered_while_the_server_drains(engine: Engine) -> None:
    app = report_app(engine)
    entered, release = threading.Event(), threading.Event()
    answers: list[int] = []

    @app.get("/slow")
    def slow() -> str:
        entered.set()
        release.wait(PATIENCE_SECONDS)
        return "done"

    with running(app) as server:
        request = threading.Thread(target=lambda: answers.append(server.request("GET", "/slow")[0]))
        request.start()
        assert entered.wait(PATIENCE_SECONDS)
        server.stop()
        until(lambda: not accepts(server.port))
        release.set()
        request.join(PATIENCE_SECONDS)
    assert answers == [200]


def test_no_answer_waits_until_the_whole_application_is_searched_for_garbage(engine: Engine) -> None:
    frozen = gc.get_freeze_count()  # some Pythons begin with a few hundred
    with running(report_app(engine)) as server:
        assert httpx.get(f"http://127.0.0.1:{server.port}/info").status_code == 200
        # Had the routes been made for the first request, they would be twice as many.
        assert len(gc.get_objects()) < gc.get_freeze_count() / 40
    assert gc.get_freeze_count() <= frozen


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def test_a_question_still_running_when_draining_is_over_is_cancelled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "DRAIN_SECONDS", 0)
    with engine.connect() as holder:
        holder.exec_driver_sql("LOCK TABLE models")
        with running(report_app(engine)) as server:
            request = threading.Thread(target=ask, args=(server.port,))
            request.start()
            until(lambda: waiting_for_locks(engine) == 1)
        # The server's thread has ended, and the database's work with it, though the lock is still held.
        until(lambda: waiting_for_locks(engine) == 0)
        request.join(PATIENCE_SECONDS)


def ask(port: int) -> None:
    try:
        httpx.get(f"http://127.0.0.1:{port}/reports/models", timeout=PATIENCE_SECONDS)
    except httpx.TransportError:
        return
