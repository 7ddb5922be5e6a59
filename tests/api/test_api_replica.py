"""DATABASE_READ_URL: a streaming replica that really lags, and what is read where."""

from __future__ import annotations

import http.client
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_cases import KEY, NOW, PATIENCE_SECONDS, Client, checkpoint, running, settings, store, until
from sqlalchemy import URL, Engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from coordinator_node.api import health_probe, live
from coordinator_node.api.app import create_app
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import make_engine
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.db.tables import LeaderboardRow
from coordinator_node.local.postgres import running_postgres
from coordinator_node.local.postgres_binaries import binaries_for
from coordinator_node.local.postgres_user import give, run_as, user_and_place
from coordinator_node.runtime.heartbeat import Heartbeat
from coordinator_node.workers import report_worker

AUTHORISED = {"X-API-Key": KEY}
BACKFILL = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
NUMBERS = itertools.count(1)


@dataclass
class Pair:
    """A primary and the replica that streams from it."""

    primary: Engine
    replica: Engine

    def store(self, *rows: SQLModel) -> None:
        store(self.primary, *rows)

    def pause(self) -> None:
        """What the primary writes from now on does not come to the replica."""
        self._tell("SELECT pg_wal_replay_pause()")
        until(lambda: self._tell("SELECT pg_get_wal_replay_pause_state()") == "paused")

    def catch_up(self) -> None:
        self._tell("SELECT pg_wal_replay_resume()")
        with self.primary.connect() as connection:
            written = connection.execute(text("SELECT pg_current_wal_lsn()::text")).scalar_one()
        until(lambda: self._tell(f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn") is True)

    def client(self, **variables: str) -> Client:
        app = create_app(
            settings(API_KEY=KEY, FEED_SOURCE="simulated", **variables),
            self.primary,
            CrunchConfig(),
            lambda: NOW,
            replica=self.replica,
        )
        return Client(app)

    def _tell(self, statement: str) -> Any:
        with self.replica.connect() as connection:
            return connection.execute(text(statement)).scalar_one()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[URL, URL]]:
    """A primary with a migrated database, and its replica."""
    with tempfile.TemporaryDirectory(prefix="coordinator-replica-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running_postgres(folder / "primary") as primary:
            engine = make_engine(primary, "tests")
            migrate_engine(engine)
            engine.dispose()
            copy_primary(make_url(primary), folder / "primary", folder / "replica")
            with running_postgres(folder / "replica") as replica:
                yield make_url(primary), make_url(replica)


def copy_primary(address: URL, data: Path, copy: Path) -> None:
    user, _ = user_and_place(data)
    copy.mkdir(mode=0o700)
    if user is not None:
        give(copy, user)
    where = ["--host", str(address.query["host"]), "--username", str(address.username)]
    options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    run_as(user, [str(binaries_for(data, user) / "pg_basebackup"), *where, *options, "--pgdata", str(copy)])


@pytest.fixture
def pair(servers: tuple[URL, URL], connect: Callable[[str], Engine]) -> Iterator[Pair]:
    """A database without rows on both."""
    name = f"test_{next(NUMBERS)}"
    postgres = connect(servers[0].set(database="postgres").render_as_string(hide_password=False))
    with postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {servers[0].database}"))
    primary, replica = (each.set(database=name).render_as_string(hide_password=False) for each in servers)
    made = Pair(connect(primary), connect(replica))
    until(lambda: answers(made.replica))
    yield made
    made.catch_up()


def answers(engine: Engine) -> bool:
    try:
        engine.connect().close()
    except OperationalError:
        return False
    return True


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_probe, "FRESH_SECONDS", 0.0)


def leaderboard(leaderboard_id: str) -> LeaderboardRow:
    entry = {"model_id": leaderboard_id, "rank": 1, "score": {"metrics": {}, "ranking": {"value": 1.0}}}
    return LeaderboardRow(id=leaderboard_id, created_at=NOW, entries_jsonb=[entry])


def leader(client: Client) -> list[str]:
    return [row["model_id"] for row in client.rows("/reports/leaderboard")]


def test_reports_come_from_the_replica_and_what_was_just_written_from_the_primary(pair: Pair) -> None:
    with closing(pair.client()) as client:
        pair.pause()
        pair.store(leaderboard("m1"), checkpoint("c1"))
        assert leader(client) == []

        def ask(method: str, path: str, **options: Any) -> Any:
            answer = client.request(method, path, headers=AUTHORISED, **options)
            assert answer.status_code in (200, 201), answer.text
            return answer.json()

        assert ask("GET", "/reports/checkpoints/latest")["status"] == "PENDING"
        assert ask("POST", "/reports/checkpoints/c1/confirm", json={"tx_hash": "tx"})["status"] == "SUBMITTED"
        assert ask("GET", "/reports/checkpoints")[0]["status"] == "SUBMITTED"
        order = {**BACKFILL, "start": "2026-02-01T00:00:00Z", "end": "2026-02-02T00:00:00Z"}
        job = ask("POST", "/reports/backfill", json=order)
        assert ask("GET", f"/reports/backfill/jobs/{job['id']}")["status"] == "pending"
        assert [each["id"] for each in ask("GET", "/reports/backfill/jobs")] == [job["id"]]
        pair.catch_up()
        assert leader(client) == ["m1"]


def test_readyz_says_how_far_the_replica_is_behind(pair: Pair) -> None:
    with closing(pair.client()) as client:
        heart = Heartbeat(pair.primary, "score")
        heart.beat()
        pair.catch_up()
        found = client.rows("/readyz")
        assert found["replica"] == {"status": "up", "lag_seconds": 0.0}
        assert not [reason for reason in found["reasons"] if "replica" in reason]
        pair.pause()
        with pair.primary.begin() as connection:
            connection.execute(text("UPDATE worker_heartbeats SET beat_at = beat_at + interval '95 seconds'"))
        found = client.rows("/readyz")
        assert (found["status"], found["replica"]) == ("degraded", {"status": "up", "lag_seconds": 95.0})
        assert "the read replica is 95 s behind the database, and so are reports" in found["reasons"]
        shown = client.get("/metrics").text
        assert "coordinator_replica_up 1.0" in shown
        assert "coordinator_replica_lag_seconds 95.0" in shown
        pair.catch_up()
        assert client.rows("/readyz")["replica"]["lag_seconds"] == 0.0


def test_without_its_replica_the_api_is_not_ready_and_says_why(
    engine: Engine, empty_database_url: str, connect: Callable[[str], Engine], tmp_path: Path
) -> None:
    missing = connect(f"postgresql+psycopg://nobody@/none?host={tmp_path}")
    with closing(Pair(engine, missing).client()) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        said = "the read replica (DATABASE_READ_URL), which reports are read from, does not answer"
        assert answer.json()["reasons"] == [said]
        assert answer.json()["replica"] == {"status": "down", "lag_seconds": None}
        assert answer.json()["database"] == "up"
        assert "coordinator_replica_up 0.0" in client.get("/metrics").text
        assert client.get("/reports/leaderboard").status_code == 503
        store(engine, checkpoint("c1"))
        assert client.request("GET", "/reports/checkpoints/latest", headers=AUTHORISED).status_code == 200
    with closing(Pair(engine, connect(empty_database_url)).client()) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "(DATABASE_READ_URL) is at revision none and the database at" in answer.json()["reasons"][0]


def test_an_event_is_told_once_it_can_be_read(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    pair.store(leaderboard("l1"))
    pair.catch_up()
    pair.pause()
    pair.store(LeaderboardRow(id="l2", created_at=NOW.replace(hour=13)))
    app = create_app(settings(), pair.primary, CrunchConfig(), lambda: NOW, replica=pair.replica)
    with running(app) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/reports/events")
        answer = connection.getresponse()
        told = (line.decode() for line in iter(answer.readline, b"") if line.startswith(b"data:"))
        try:
            assert '"id":"l1"' in next(told)
            pair.catch_up()
            assert '"id":"l2"' in next(told)
        finally:
            connection.close()
            answer.close()


def test_the_report_worker_takes_the_replica_from_its_settings(
    monkeypatch: pytest.MonkeyPatch, database_url: str, empty_database_url: str
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(report_worker, "create_app", lambda *given, **named: made.update(named))
    monkeypatch.setattr(report_worker, "listen_on", lambda *given: None)
    for read_url, expected in (("", None), (empty_database_url, empty_database_url)):
        report_worker.build(settings(DATABASE_URL=database_url, DATABASE_READ_URL=read_url))
        replica = made["replica"]
        assert (replica and replica.url.render_as_string(hide_password=False)) == expected
