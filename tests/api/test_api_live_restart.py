"""GET /reports/events while Postgres ends and starts again."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_cases import report_app, running
from sqlalchemy import Engine
from test_api_live import leaderboard, listening

from coordinator_node.api import live
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.local.postgres import EmbeddedPostgres
from coordinator_node.local.process import launch_command


class Server:
    """A Postgres that a test ends and starts again."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres

    def start(self) -> None:
        self._postgres.prepare()
        self._process = subprocess.Popen(
            launch_command(self._postgres.command(), self._postgres.user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._postgres.wait_until_ready(given_up=lambda: self._process.poll() is not None)

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait()


@pytest.fixture
def postgres() -> Iterator[tuple[Server, str]]:
    with tempfile.TemporaryDirectory(prefix="coordinator-restart-") as name:
        Path(name).chmod(0o755)
        with EmbeddedPostgres(Path(name) / "postgres", durable=False) as embedded:
            server = Server(embedded)
            server.start()
            try:
                yield server, embedded.url
            finally:
                server.end(signal.SIGQUIT)


def test_streams_go_on_when_postgres_has_started_again(
    postgres: tuple[Server, str], connect: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is told afterwards is told because the new connection listens, and looks before it waits.
    monkeypatch.setattr(live, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(live, "RECONNECT_SECONDS", 0.05)
    server, url = postgres
    engine = connect(url)
    migrate_engine(engine)
    leaderboard(engine, "l0", 0, notified=False)
    with running(report_app(engine)) as api, listening(api) as one, listening(api) as other:
        assert [stream.next()[1]["id"] for stream in (one, other)] == ["l0", "l0"]
        for number, how in enumerate((signal.SIGINT, signal.SIGQUIT)):
            server.end(how)
            assert api.request("GET", "/healthz")[0] == 503
            assert next(line for line in one.lines() if line) == ": nothing new"
            server.start()
            assert api.request("GET", "/reports/models")[0] == 200
            for step in (1, 2):
                newest = f"l{2 * number + step}"
                leaderboard(engine, newest, 2 * number + step, notified=True)
                assert [stream.next()[1]["id"] for stream in (one, other)] == [newest, newest]
            with listening(api) as late:
                assert late.next()[1]["id"] == newest
