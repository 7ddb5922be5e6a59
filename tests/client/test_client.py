"""The client against a real server, and against one that fails in every way it can."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api_cases import (
    INPUT,
    KEY,
    NOW,
    RunningServer,
    checkpoint,
    model,
    prediction,
    report_app,
    running,
    schedule,
    score,
    store,
)
from sqlalchemy import Engine

from coordinator_node.api import live
from coordinator_node.client import ApiAnswerError, ApiUnreachableError, CoordinatorClient
from coordinator_node.client import transport as client_transport
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.tables import FeedIngestionStateRow, FeedRecordRow, InputRow, LeaderboardRow, SnapshotRow
from coordinator_node.entities.prediction import CheckpointStatus
from coordinator_node.schemas.report.backfill import BackfillFile, BackfillOrder

Answer = tuple[int, dict[str, str], object]
FEED = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were wanted, and none of them kept."""
    wanted: list[float] = []
    given = client_transport.Transport.__init__

    def without(self: client_transport.Transport, *args: Any) -> None:
        given(self, *args, wanted.append)

    monkeypatch.setattr(client_transport.Transport, "__init__", without)
    return wanted


@contextmanager
def client_of(server: RunningServer, key: str | None = KEY) -> Iterator[CoordinatorClient]:
    with CoordinatorClient(f"http://127.0.0.1:{server.port}/", key) as client:
        yield client


def test_every_call_gives_what_the_api_has(engine: Engine, tmp_path: Path) -> None:
    store(engine, model("m1", presence="PRESENT"), schedule(), InputRow(id=INPUT))
    scored = prediction("m1", NOW - timedelta(hours=1), id="p1", status="SCORED")
    store(engine, scored, score(prediction("m1", NOW, id="p1")))
    entry = {"model_id": "m1", "rank": 1, "model_name": "n", "cruncher_name": "c", "score": {"metrics": {"ic": 0.5}}}
    store(engine, LeaderboardRow(created_at=NOW, entries_jsonb=[entry]), checkpoint("c1", NOW))
    store(
        engine,
        SnapshotRow(id="s1", model_id="m1", period_start=NOW, period_end=NOW, prediction_count=1, created_at=NOW),
        FeedIngestionStateRow(**FEED, last_event_ts=NOW, updated_at=NOW),
        FeedRecordRow(**FEED, ts_event=NOW, ts_ingested=NOW, values_jsonb={"price": 1.5}),
    )
    config = CrunchConfig(mode="tournament")
    with (
        running(report_app(engine, config, API_KEY=KEY, API_READ_AUTH="true", FEED_SOURCE="simulated")) as server,
        client_of(server) as client,
    ):
        assert client.info().crunch_id == "starter-challenge"
        assert client.readiness().status == "degraded"
        metrics = {**dict.fromkeys(config.metrics), "ic": 0.5}
        assert [(row.model_id, row.model_extra) for row in client.leaderboard()] == [("m1", metrics)]
        assert [row.model_id for row in client.models()] == ["m1"]
        (point,) = client.predictions(["m1", "m2"], start=NOW - timedelta(days=1), end=NOW)
        assert (point.score_value, point.performed_at) == (0.5, NOW - timedelta(hours=1))
        assert [row.id for row in client.snapshots("m1", since=NOW)] == ["s1"]
        assert [row["id"] for row in client.rows("/reports/snapshots", limit=5)] == ["s1"]
        assert client.document("/reports/models/m1/diversity")["diversity_score"] is None
        assert [row.subject for row in client.feeds()] == ["BTC"]
        assert [row.values for row in client.feed_tail(**FEED)] == [{"price": 1.5}]
        order = BackfillOrder(**FEED, start=NOW - timedelta(days=2), end=NOW - timedelta(days=1))
        job = client.order_backfill(order)
        assert client.backfill_job(job.id) == job
        assert [found.id for found in client.backfill_jobs()] == [job.id]
        with pytest.raises(ApiAnswerError) as busy:
            client.order_backfill(order)
        assert busy.value.status == 409
        assert client.backfill_files(**FEED) == []
        assert [row.id for row in client.checkpoints(CheckpointStatus.PENDING)] == ["c1"]
        assert client.latest_checkpoint().status is CheckpointStatus.PENDING
        assert client.checkpoint_payload("c1").checkpoint_id == "c1"
        assert client.checkpoint_emission("c1")["crunch"] == "crunch-address"
        assert sum(client.checkpoint_cli_emission("c1").crunchEmission.values()) == pytest.approx(100)
        assert client.latest_emission().checkpoint_id == "c1"
        assert sum(prize.prize for prize in client.prizes("c1", 1001)) == 1001
        assert client.latest_prizes(1001).total_prize == 1001
        assert client.confirm_checkpoint("c1", "t1").tx_hash == "t1"
        assert client.advance_checkpoint("c1", CheckpointStatus.CLAIMABLE).status is CheckpointStatus.CLAIMABLE
        assert client.ask_round("r 1", [{"x": 1}]).features == 1
        assert client.round_status("r 1").truths == 0
        with pytest.raises(ApiAnswerError, match=r"POST /tournament/rounds/r%202/score: 404: "):
            client.score_round("r 2", [{"y": 1}])


def test_a_wrong_key_is_an_error_without_the_key(engine: Engine) -> None:
    with running(report_app(engine, API_KEY=KEY)) as server:
        for key in (None, "wrong-key-of-mine"):
            with client_of(server, key) as client, pytest.raises(ApiAnswerError) as refused:
                client.latest_checkpoint()
            assert refused.value.status == 401
            assert "key: send it as" in str(refused.value)
            assert "wrong-key-of-mine" not in str(refused.value)


def test_events_go_on_after_a_break(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    store(engine, LeaderboardRow(id="l1", created_at=NOW))
    with running(report_app(engine, API_KEY=KEY)) as server, client_of(server) as client:
        events = client.events()
        assert next(events).data.id == "l1"
        store(engine, LeaderboardRow(id="l2", created_at=NOW + timedelta(seconds=1)))
        name, data = next(events)
        assert (name, data.id, data.created_at) == ("leaderboard", "l2", NOW + timedelta(seconds=1))
        events.close()


def test_a_file_is_fetched_whole_or_not_at_all(engine: Engine, tmp_path: Path) -> None:
    stored = tmp_path / "stored" / "simulated" / "BTC" / "tick" / "1s"
    stored.mkdir(parents=True)
    pq.write_table(pa.table({"x": list(range(1000))}), stored / "2026-01-01.parquet")
    with running(report_app(engine, BACKFILL_DATA_DIR=str(tmp_path / "stored"))) as server, client_of(server) as client:
        (file,) = client.backfill_files(subject="BTC")
        target = client.download(file, tmp_path / "mine")
        assert target == tmp_path / "mine" / file.path
        assert target.read_bytes() == (stored / "2026-01-01.parquet").read_bytes()
        missing = file.model_copy(update={"path": file.path.replace("2026", "2025")})
        with pytest.raises(ApiAnswerError, match="404"):
            client.download(missing, tmp_path / "mine")
        assert [found.name for found in target.parent.iterdir()] == ["2026-01-01.parquet"]
        outside = BackfillFile.model_construct(path="../../outside.parquet")
        with pytest.raises(ValueError, match="leads out of"):
            client.download(outside, tmp_path / "mine")


def test_a_file_is_fetched_again_only_if_it_changed(engine: Engine, tmp_path: Path) -> None:
    stored = tmp_path / "stored" / "simulated" / "BTC" / "tick" / "1s" / "2026-01-01.parquet"
    stored.parent.mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), stored)
    with running(report_app(engine, BACKFILL_DATA_DIR=str(tmp_path / "stored"))) as server, client_of(server) as client:
        (file,) = client.backfill_files(subject="BTC")
        mine = tmp_path / "mine" / file.path
        assert [client.download_if_changed(file, tmp_path / "mine") for _ in range(2)] == [True, False]
        pq.write_table(pa.table({"x": [1, 2]}), stored)
        assert [client.download_if_changed(file, tmp_path / "mine") for _ in range(2)] == [True, False]
        assert mine.read_bytes() == stored.read_bytes()
        mine.unlink()
        assert client.download_if_changed(file, tmp_path / "mine")
        assert sorted(found.name for found in mine.parent.iterdir()) == [".2026-01-01.parquet.etag", mine.name]


class Script:
    """A server that gives the answers it was told to, one after another, and remembers what it was asked."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                script.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                given = script.answers.pop(0)
                if given is None:
                    self.close_connection = True
                    return
                status, headers, body = given
                text = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = answer  # noqa: N815 - names of http.server

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def scripted() -> Iterator[Callable[..., tuple[Script, CoordinatorClient]]]:
    started: list[tuple[Script, CoordinatorClient, threading.Thread]] = []

    def start(*answers: Answer | None, **options: Any) -> tuple[Script, CoordinatorClient]:
        script = Script(*answers)
        thread = threading.Thread(target=lambda: script.server.serve_forever(poll_interval=0.01))
        thread.start()
        started.append((script, CoordinatorClient(script.url, KEY, **options), thread))
        return started[-1][:2]

    yield start
    for script, client, thread in started:
        client.close()
        script.server.shutdown()
        script.server.server_close()
        thread.join()


Scripted = Callable[..., tuple[Script, CoordinatorClient]]
INFO = {"crunch_id": "c", "crunch_address": "", "network": "devnet"}


def test_what_only_reads_is_repeated_until_it_works(scripted: Scripted, no_pauses: list[float]) -> None:
    script, client = scripted((503, {}, {"detail": "busy"}), None, (429, {"Retry-After": "7"}, {}), (200, {}, INFO))
    assert client.info().crunch_id == "c"
    assert len(script.asked) == 4
    assert 0.25 <= no_pauses[0] <= 0.5
    assert 0.5 <= no_pauses[1] <= 1.0
    assert no_pauses[2] == 7.0
    assert {headers["x-api-key"] for _, _, headers in script.asked} == {KEY}


def test_in_the_end_it_gives_up(scripted: Scripted) -> None:
    script, client = scripted(*[(503, {}, {"detail": "busy"})] * 2, attempts=2)
    with pytest.raises(ApiAnswerError, match="GET /info: 503: busy"):
        client.info()
    script, client = scripted(None, None, attempts=2)
    with pytest.raises(ApiUnreachableError, match=rf"GET {script.url}/info: no connection"):
        client.info()


BROKEN: Answer = (200, {"Content-Length": "1000", "Connection": "close"}, b"[")
FILE = BackfillFile.model_construct(path="simulated/BTC/tick/1s/2026-01-01.parquet")


def test_an_answer_that_breaks_off_is_asked_for_again(scripted: Scripted, tmp_path: Path) -> None:
    script, client = scripted(BROKEN, (200, {}, INFO), BROKEN, (200, {"ETag": '"1"'}, b"whole"))
    assert client.info().crunch_id == "c"
    assert client.download_if_changed(FILE, tmp_path)
    assert (tmp_path / FILE.path).read_bytes() == b"whole"
    assert len(script.asked) == 4
    script, client = scripted(*[BROKEN] * 4, attempts=2)
    with pytest.raises(ApiUnreachableError, match=rf"GET {script.url}/info: the connection broke"):
        client.info()
    with pytest.raises(ApiUnreachableError, match=r"2026-01-01\.parquet: the connection broke; ask again"):
        client.download_if_changed(FILE, tmp_path)
    # What was there before stays.
    assert (tmp_path / FILE.path).read_bytes() == b"whole"


def test_why_nobody_can_be_reached_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound, and not listening: nobody else can have the port.
        with (
            CoordinatorClient(f"http://127.0.0.1:{taken.getsockname()[1]}", attempts=1) as client,
            pytest.raises(ApiUnreachableError, match="/info: no connection: Connection refused"),
        ):
            client.info()


def test_a_password_in_the_address_is_shown_by_no_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with CoordinatorClient(f"http://me:secret@{host}/api/", attempts=1) as client:
            with pytest.raises(ApiUnreachableError) as refused:
                client.info()
            assert str(refused.value).startswith(f"GET http://{host}/api/info: no connection")
    with pytest.raises(ValueError, match="give the key as api_key") as wrong:
        CoordinatorClient(f"http://{host}/?api_key=secret")
    assert "secret" not in str(wrong.value)


def test_a_refusal_that_is_not_the_apis_is_shown_from_its_beginning(scripted: Scripted) -> None:
    _, client = scripted((404, {}, b"<p>no such\n  host</p>" + b"x" * 1000), (404, {}, b""))
    with pytest.raises(ApiAnswerError, match="GET /info: 404: <p>no such host</p>xxx") as refused:
        client.info()
    assert len(str(refused.value)) < 300
    with pytest.raises(ApiAnswerError, match="GET /info: 404: Not Found"):
        client.info()


@pytest.mark.parametrize("answer", [None, (503, {}, {"detail": "busy"}), (500, {}, b"<html>")])
def test_what_changes_something_is_asked_once(scripted: Scripted, answer: Answer | None) -> None:
    script, client = scripted(answer)
    with pytest.raises((ApiAnswerError, ApiUnreachableError)):
        client.confirm_checkpoint("c1", "t1")
    assert len(script.asked) == 1


def test_pages_are_followed_by_either_header_and_only_as_far_as_they_are_read(scripted: Scripted) -> None:
    elsewhere = '<https://internal.invalid/reports/x?limit=2&cursor=b%2B1>; rel="next"'
    script, client = scripted(
        (200, {"X-Next-Cursor": "a"}, [{"n": 1}, {"n": 2}]),
        (200, {"Link": elsewhere}, [{"n": 3}]),
        (200, {}, [{"n": 4}]),
        (200, {"X-Next-Cursor": "a"}, [{"n": 1}, {"n": 2}]),
    )
    assert [row["n"] for row in client.rows("/reports/x", limit=2, since=datetime(2026, 1, 1, tzinfo=UTC))] == [
        1,
        2,
        3,
        4,
    ]
    assert [path for _, path, _ in script.asked] == [
        "/reports/x?limit=2&since=2026-01-01T00%3A00%3A00%2B00%3A00",
        "/reports/x?limit=2&since=2026-01-01T00%3A00%3A00%2B00%3A00&cursor=a",
        "/reports/x?limit=2&since=2026-01-01T00%3A00%3A00%2B00%3A00&cursor=b%2B1",
    ]
    assert len(list(islice(client.rows("/reports/x"), 2))) == 2
    assert len(script.asked) == 4


def test_an_empty_page_is_not_the_last_one(scripted: Scripted) -> None:
    script, client = scripted(
        (200, {"X-Next-Cursor": "a"}, []), (200, {"X-Next-Cursor": "b"}, [{"n": 1}]), (200, {"X-Next-Cursor": "b"}, [])
    )
    assert list(client.rows("/reports/checkpoints/rewards", model_id="late")) == [{"n": 1}]
    assert len(script.asked) == 3, "what names itself as the next is the last"


def test_a_redirect_is_not_followed_with_the_key(scripted: Scripted) -> None:
    script, client = scripted((307, {"Location": "http://elsewhere.invalid/info?api_key=x"}, {}))
    with pytest.raises(ApiAnswerError, match=r"307: it redirects to http://elsewhere\.invalid/info: use"):
        client.info()
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"<html>", "the answer is no JSON"), ({"crunch_id": 7}, "reading the answer's crunch_id: 200: Input should be")],
)
def test_an_answer_of_another_shape_is_said(scripted: Scripted, body: object, said: str) -> None:
    _, client = scripted((200, {}, body))
    with pytest.raises(ApiAnswerError, match=said):
        client.info()


@pytest.mark.parametrize("odd", ["", ".", ".."])
def test_an_id_that_would_be_another_path_is_refused(scripted: Scripted, odd: str) -> None:
    script, client = scripted()
    with pytest.raises(ValueError, match="is no id"):
        client.checkpoint_payload(odd)
    assert script.asked == []
