"""GET /reports/events over a real socket."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from api_cases import KEY, NOW, PATIENCE_SECONDS, RunningServer, checkpoint, report_app, running, settings, store, until
from sqlalchemy import Engine, text

from coordinator_node.api import live
from coordinator_node.api.app import create_app
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.tables import FeedIngestionStateRow, LeaderboardRow
from coordinator_node.runtime.notify import SNAPSHOTS

Event = tuple[str, dict[str, Any]]
SIMULATED = {"FEED_SOURCE": "simulated"}


class Stream:
    """One client's open answer."""

    def __init__(self, server: RunningServer, query: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
        self._connection.request("GET", f"/reports/events{query}")
        self.answer = self._connection.getresponse()

    def lines(self) -> Iterator[str]:
        while line := self.answer.readline():
            yield line.decode().rstrip("\n")

    def next(self, name: str | None = None) -> Event:
        """The next event, or the next of that name."""
        found, deadline = "", time.monotonic() + PATIENCE_SECONDS
        for line in self.lines():
            # A quiet stream says so for ever.
            assert time.monotonic() < deadline, "what was waited for did not come"
            if line.startswith("event: "):
                found = line.removeprefix("event: ")
            elif line.startswith("data: ") and name in (None, found):
                return found, json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream has ended")

    def close(self) -> None:
        self._connection.close()
        self.answer.close()


@contextmanager
def listening(server: RunningServer, query: str = "") -> Iterator[Stream]:
    stream = Stream(server, query)
    try:
        yield stream
    finally:
        stream.close()


def leaderboard(engine: Engine, leaderboard_id: str, seconds: int, *, notified: bool) -> None:
    store(engine, LeaderboardRow(id=leaderboard_id, created_at=NOW + timedelta(seconds=seconds)))
    if notified:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": SNAPSHOTS})


def listeners(engine: Engine) -> int:
    with engine.connect() as connection:
        counted = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
        return int(connection.execute(counted, {"name": live.APPLICATION}).scalar_one())


def test_the_present_state_comes_first_and_then_what_changes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 3600.0)
    leaderboard(engine, "l1", 0, notified=False)
    store(engine, checkpoint("c0", NOW - timedelta(days=7), status="PAID"), checkpoint("c1", NOW))
    feed = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
    store(engine, FeedIngestionStateRow(**feed, last_event_ts=NOW - timedelta(seconds=300), updated_at=NOW))
    with running(report_app(engine, **SIMULATED)) as server, listening(server) as stream:
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        assert stream.answer.headers["cache-control"] == "no-cache"
        assert stream.next() == ("leaderboard", {"id": "l1", "created_at": "2026-03-01T12:00:00+00:00"})
        assert [stream.next("checkpoint")[1]["status"] for _ in range(2)] == ["PAID", "PENDING"]
        name, health = stream.next()
        assert name == "feed"
        assert health == {
            **feed,
            "watermark_ts": "2026-03-01T11:55:00+00:00",
            "watermark_age_seconds": 300.0,
            "late": True,
        }
        leaderboard(engine, "l2", 1, notified=True)
        assert stream.next() == ("leaderboard", {"id": "l2", "created_at": "2026-03-01T12:00:01+00:00"})
        status, _, _ = server.request(
            "POST", "/reports/checkpoints/c1/confirm", {"Content-Type": "application/json"}, b'{"tx_hash": "t1"}'
        )
        assert status == 200
        name, confirmed = stream.next()
        assert (name, confirmed["id"], confirmed["status"], confirmed["tx_hash"]) == (
            "checkpoint",
            "c1",
            "SUBMITTED",
            "t1",
        )


def test_without_any_notification_changes_come_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    leaderboard(engine, "l1", 0, notified=False)
    with running(report_app(engine)) as server, listening(server) as stream:
        assert stream.next()[1]["id"] == "l1"
        leaderboard(engine, "l2", 1, notified=False)
        assert stream.next()[1]["id"] == "l2"


def test_many_clients_share_one_connection(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.05)
    leaderboard(engine, "l1", 0, notified=False)
    with running(report_app(engine)) as server:
        assert listeners(engine) == 0
        with ExitStack() as streams:
            clients = [streams.enter_context(listening(server)) for _ in range(20)]
            assert {client.next()[1]["id"] for client in clients} == {"l1"}
            leaderboard(engine, "l2", 1, notified=True)
            assert {client.next()[1]["id"] for client in clients} == {"l2"}
            assert listeners(engine) == 1
        until(lambda: listeners(engine) == 0)
        with listening(server) as again:
            assert again.next()[1]["id"] == "l2"


def test_who_comes_after_all_have_left_gets_the_state_of_then(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.05)
    before = live.CLIENTS.collect()[0].samples[0].value
    leaderboard(engine, "l1", 0, notified=False)
    with running(report_app(engine)) as server:
        with listening(server) as stream:
            assert stream.next()[1]["id"] == "l1"
            assert live.CLIENTS.collect()[0].samples[0].value == before + 1
        until(lambda: live.CLIENTS.collect()[0].samples[0].value == before)
        leaderboard(engine, "l2", 1, notified=False)
        with listening(server) as stream:
            assert stream.next()[1]["id"] == "l2"


def test_that_a_feed_grows_older_is_no_news_until_it_is_late(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.02)
    feed = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
    store(engine, FeedIngestionStateRow(**feed, last_event_ts=NOW, updated_at=NOW))
    now = [NOW]
    looks: list[datetime] = []

    def clock() -> datetime:
        looks.append(now[0])
        return now[0]

    app = create_app(settings(**SIMULATED), engine, CrunchConfig(), clock)
    with running(app) as server, listening(server) as stream:
        assert stream.next("feed")[1]["watermark_age_seconds"] == 0
        for seconds in (1, 300):
            now[0] = NOW + timedelta(seconds=seconds)
            until(lambda: looks.count(now[0]) > 2)
        late = stream.next("feed")[1]
        assert (late["watermark_age_seconds"], late["late"]) == (300, True)


def test_no_event_waits_for_others_to_be_compressed_with(engine: Engine) -> None:
    leaderboard(engine, "l1", 0, notified=False)
    with running(report_app(engine)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/reports/events", headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        assert "content-encoding" not in answer.headers
        assert answer.headers["x-accel-buffering"] == "no", "nor does a proxy hold it back"
        assert answer.readline() == b"retry: 3000\n"
        connection.close()
        answer.close()


def test_a_lost_connection_is_made_anew(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECONNECT_SECONDS", 0.05)
    leaderboard(engine, "l1", 0, notified=False)
    with running(report_app(engine)) as server, listening(server) as stream:
        assert stream.next()[1]["id"] == "l1"
        with engine.begin() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"),
                {"name": live.APPLICATION},
            )
        leaderboard(engine, "l2", 1, notified=False)
        assert stream.next()[1]["id"] == "l2"


def test_a_look_that_fails_is_not_the_last_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RECONNECT_SECONDS", 0.05)
    leaderboard(engine, "l1", 0, notified=False)
    faults = [ValueError("a row that nobody thought of")]
    look = live.newest_leaderboards

    async def failing_once(connection: Any) -> list[dict[str, Any]]:
        if faults:
            raise faults.pop()
        return await look(connection)

    monkeypatch.setattr(live, "newest_leaderboards", failing_once)
    with running(report_app(engine)) as server, listening(server) as stream:
        assert stream.next()[1]["id"] == "l1"
    assert not faults


def test_a_quiet_stream_says_so_and_ends_with_the_server(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.05)
    with running(report_app(engine)) as server:
        stream = Stream(server)
        lines = stream.lines()
        assert next(lines) == "retry: 3000"
        assert next(line for line in lines if line) == ": nothing new"
    # The server's thread has ended though its client did not leave.
    assert set(lines) <= {"", ": nothing new"}
    stream.close()


def test_beyond_the_most_clients_another_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_CLIENTS", 1)
    leaderboard(engine, "l1", 0, notified=False)
    with running(report_app(engine)) as server, listening(server) as stream:
        stream.next()
        assert server.request("GET", "/reports/events")[0] == 503


def test_the_key_is_asked_for_where_reading_needs_one(engine: Engine) -> None:
    leaderboard(engine, "l1", 0, notified=False)
    with running(report_app(engine, API_KEY=KEY, API_READ_AUTH="true")) as server:
        assert server.request("GET", "/reports/events")[0] == 401
        with listening(server, f"?api_key={KEY.replace(' ', '%20')}") as stream:
            assert stream.next()[1]["id"] == "l1"


def test_of_what_a_slow_client_has_not_read_the_newest_stays() -> None:
    box = live.Mailbox()
    events = [live.LeaderboardEvent(id=f"l{n}", created_at=NOW) for n in range(3)]
    for event in events:
        box.put({("leaderboard",): event})
    assert box.filled.is_set()
    assert list(box.take().values()) == [events[-1]]
    assert not box.filled.is_set()
    assert not box.take()
