"""A backtest over a coordinator's files: fetched once, and again only the days that changed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from api_cases import report_app, running
from backtest_cases import Momentum, config_of, every, walk, write_files
from sqlalchemy import Engine

from coordinator_node.backtest import BacktestRunner, Round
from coordinator_node.backtest.download import Coordinator, CoordinatorError
from coordinator_node.client import transport
from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig
from coordinator_node.entities.errors import ConfigurationError

START = datetime(2025, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WANTED = {"source": "simulated", "subject": "BTC"}


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """What the coordinator has: three days of candles."""
    return write_files(tmp_path / "remote", walk("BTC", every(60, START, START + 3 * DAY), "candle", "1m"))


@pytest.fixture
def url(remote: Path, engine: Engine) -> Iterator[str]:
    with running(report_app(engine, BACKFILL_DATA_DIR=str(remote))) as server:
        yield f"http://127.0.0.1:{server.port}"


def test_a_day_is_fetched_when_it_is_missing_or_has_changed(url: str, remote: Path, tmp_path: Path) -> None:
    with Coordinator(url, cache=tmp_path / "cache") as coordinator:
        days = coordinator.days(**WANTED)
        assert coordinator.fetch(days) == [True, True, True]
        assert coordinator.fetch(days) == [False, False, False]
        write_files(remote, walk("BTC", [START + DAY + timedelta(seconds=30)], "candle", "1m"))
        places = sorted((tmp_path / "cache").rglob("*.parquet"))
        places[2].unlink()
        assert coordinator.fetch(days) == [False, True, True]
    assert [place.read_bytes() for place in places] == [
        place.read_bytes() for place in sorted(remote.rglob("*.parquet"))
    ]


def test_the_file_is_not_sent_to_who_has_it(url: str) -> None:
    file = f"{url}/data/backfill/simulated/BTC/candle/1m/2025-06-01.parquet"
    first = httpx.get(file)
    assert (first.status_code, first.headers["ETag"][0], len(first.content) > 1000) == (200, '"', True)
    for said in (first.headers["ETag"], f'"other", W/{first.headers["ETag"]}', "*"):
        again = httpx.get(file, headers={"If-None-Match": said})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert httpx.get(file, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_backtest_over_a_coordinators_files_is_that_over_a_folder(url: str, remote: Path, tmp_path: Path) -> None:
    period = (START + DAY, START + DAY + timedelta(hours=3))
    cache = tmp_path / "cache"
    fetched = BacktestRunner(Momentum, config_of(), coordinator_url=url, data=cache).run(*period)
    local = BacktestRunner(Momentum, config_of(), data=remote).run(*period)
    assert fetched.predictions_df.drop(columns="exec_time_ms").equals(local.predictions_df.drop(columns="exec_time_ms"))
    # The period's own day, and the one before it, which fills the first window.
    assert sorted(file.name for file in cache.rglob("*.parquet")) == ["2025-06-01.parquet", "2025-06-02.parquet"]


def test_a_first_window_is_as_full_as_live_where_the_feed_has_a_gap(url: str, remote: Path, tmp_path: Path) -> None:
    after_gap = START + 9 * DAY
    write_files(remote, walk("BTC", every(60, after_gap, after_gap + DAY / 24), "candle", "1m"))
    period, cache = (after_gap, after_gap + timedelta(minutes=30)), tmp_path / "cache"
    fetched = BacktestRunner(lambda: Momentum(50), config_of(), coordinator_url=url, data=cache).run(*period)
    local = BacktestRunner(lambda: Momentum(50), config_of(), data=remote).run(*period)
    assert [one.record.inference_output for one in fetched.judged] == [
        one.record.inference_output for one in local.judged
    ]
    assert sorted(file.name for file in cache.rglob("*.parquet")) == ["2025-06-03.parquet", "2025-06-10.parquet"]


@contextmanager
def serving(answers: dict[str, str]) -> Iterator[str]:
    """Something else that answers HTTP: its address. What it does not know is a 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = answers.get(self.path)
            self.send_response(404 if known is None else 200)
            self.end_headers()
            self.wfile.write((known or "who?").encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def other() -> Iterator[str]:
    """Something that knows one model's diversity, and nothing else."""
    with serving({"/reports/models/a%2Fb/diversity": '{"model_id": "a/b", "diversity_score": 0.5}'}) as url:
        yield url


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../BTC/candle/1m/2025-06-01.parquet", "source '..' cannot name a folder"),
        ("simulated/BTC/candle/1m/2025-06-01", "'2025-06-01' is no file of a day"),
        ("simulated/BTC/2025-06-01.parquet", "not enough values"),
        (7, "reading the answer's 0.path: 200: Input should be a valid string"),
    ],
)
def test_a_file_that_may_not_be_written_is_said(path: object, said: str) -> None:
    entry = {"path": path, "date": "2025-06-01", "records": None, "size_bytes": 1}
    answer = f"/data/backfill/index answered something else: .*{re.escape(said)}"
    with (
        serving({"/data/backfill/index": json.dumps([entry])}) as url,
        Coordinator(url) as coordinator,
        pytest.raises(CoordinatorError, match=answer),
    ):
        coordinator.days()


def test_a_deployed_models_diversity_is_the_coordinators(other: str) -> None:
    model = type("Says", (), {"predict": lambda self, features: {"value": 1.0}})
    config = CrunchConfig(
        mode="tournament", call_method=CallMethodConfig(args=[CallMethodArg(name="features", type="JSON")])
    )
    runner = BacktestRunner(model, config, data=[Round("r1", START, [{"x": 1.0}])], coordinator_url=other)
    assert runner.run(START, START + DAY).diversity is None
    assert runner.run(START, START + DAY, model_id="a/b").diversity == {"model_id": "a/b", "diversity_score": 0.5}


def test_what_a_coordinator_does_not_give_is_said(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE_SECONDS", 0)
    with Coordinator(other) as coordinator:
        assert coordinator.diversity("a/b")["diversity_score"] == 0.5
        with pytest.raises(CoordinatorError, match="/reports/models/c/diversity answered 404: who"):
            coordinator.diversity("c")
    with Coordinator("http://127.0.0.1:1") as nobody, pytest.raises(CoordinatorError, match="/data/backfill/index: "):
        nobody.days()
    with Coordinator(other, "two\nlines") as coordinator:
        with pytest.raises(CoordinatorError, match="cannot be asked: InvalidHeader; is the address right") as refused:
            coordinator.days()
        assert "lines" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="is no address of a coordinator"):
        Coordinator("coordinator.example")
    with pytest.raises(ConfigurationError, match="give the key as api_key"):
        Coordinator("https://coordinator.example?api_key=k")


def test_a_password_in_the_address_names_no_folder_and_is_in_no_error(other: str) -> None:
    with Coordinator(other.replace("://", "://me:secret@")) as coordinator:
        assert coordinator.root.name == urlsplit(other).netloc.replace(":", "_")
        with pytest.raises(CoordinatorError) as refused:
            coordinator.diversity("c")
    assert str(refused.value).startswith(f"{other}/reports/models/c/diversity answered 404")
