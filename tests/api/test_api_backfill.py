"""History on request: orders and their refusals, jobs and how far they have come, the files and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from api_cases import KEY, NOW, Client, ClientMaker, report_app, running, store
from sqlalchemy import Engine, text

from coordinator_node.db.tables import BackfillJobRow
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.runtime.leases import Lease
from coordinator_node.services.backfill.files import feed_folder, stage
from coordinator_node.services.backfill.jobs import LEASE_NAME

ORDER = {
    "source": "simulated",
    "subject": "BTC",
    "kind": "candle",
    "granularity": "1m",
    "start": "2026-02-01T00:00:00Z",
    "end": "2026-02-03T00:00:00Z",
}
START, END = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 3, tzinfo=UTC)
JOBS = "/reports/backfill/jobs"


NO_FILES = [
    "simulated/BTC/candle/1m/2026-02-09.parquet",
    "simulated/BTC/candle/1m/.2026-02-01.parquet.x.unfinished",
    "simulated/BTC/candle/1m/secret.txt",
    "simulated/BTC/candle/1m/link.parquet",
    "simulated/BTC/candle/1m/2026-03-01.parquet",
    "simulated/BTC/candle/1m/2026-02-01.parquet%00",
    "simulated/BTC/candle/1m/2026-02-01.parquet%0a",
    "simulated/BTC/candle/%2e%2e/2026-02-01.parquet",
    "simulated/BTC/candle/1m/..%2f1m%2f2026-02-01.parquet",
    "..%2f..%2fetc/BTC/candle/1m/passwd",
    "../../../../../../etc/passwd",
    "%2fetc/x/x/x/passwd",
]


def order(client: Client, **changes: Any) -> Any:
    return client.request("POST", "/reports/backfill", json={**ORDER, **changes})


def job(job_id: str, **values: Any) -> BackfillJobRow:
    parts = {name: ORDER[name] for name in ("source", "subject", "kind", "granularity")}
    times = {"start_ts": START, "end_ts": END, "created_at": NOW, "updated_at": NOW}
    return BackfillJobRow(**{"id": job_id, **parts, **times, **values})


def files(root: Path, subject: str = "BTC", days: int = 2) -> Path:
    """A record a day, below the root; returns the folder."""
    folder = feed_folder(root, "simulated", subject, "candle", "1m")
    records = [
        FeedRecord("simulated", subject, "candle", "1m", START + timedelta(days=day), {"close": 1.5})
        for day in range(days)
    ]
    for day in stage(folder, records):
        day.publish()
    return folder


def test_an_order_is_a_job_that_waits(client: Client) -> None:
    answer = order(client)
    assert answer.status_code == 201
    made = answer.json()
    assert made == {
        **{name: ORDER[name] for name in ("source", "subject", "kind", "granularity")},
        "id": made["id"],
        "start_ts": "2026-02-01T00:00:00+00:00",
        "end_ts": "2026-02-03T00:00:00+00:00",
        "cursor_ts": None,
        "records_written": 0,
        "pages_fetched": 0,
        "status": "pending",
        "error": None,
        "progress_pct": 0.0,
        "created_at": "2026-03-01T12:00:00+00:00",
        "updated_at": "2026-03-01T12:00:00+00:00",
    }
    assert client.rows(JOBS) == [made]
    assert client.rows(f"{JOBS}/{made['id']}") == made


def test_naive_times_are_utc_and_an_end_to_come_is_now(client: Client) -> None:
    made = order(client, start="2026-02-01T00:00:00", end="2030-01-01T01:00:00+02:00").json()
    assert (made["start_ts"], made["end_ts"]) == ("2026-02-01T00:00:00+00:00", "2026-03-01T12:00:00+00:00")


def test_one_job_at_a_time(client: Client) -> None:
    first = order(client).json()["id"]
    answer = order(client, subject="ETH")
    assert answer.status_code == 409
    assert f"backfill job {first} is pending" in answer.json()["detail"]
    assert len(client.rows(JOBS)) == 1


def test_a_job_that_runs_stands_in_the_way_only_while_somebody_runs_it(client: Client, engine: Engine) -> None:
    store(engine, job("left", status="running", cursor_ts=START + timedelta(days=1)))
    runner = Lease(engine, LEASE_NAME, "a feed worker")
    runner.keep()
    answer = order(client, subject="ETH")
    assert answer.status_code == 409
    assert "backfill job left is running" in answer.json()["detail"]
    with engine.begin() as connection:  # killed, and its lease has run out
        connection.execute(text("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'"))
    assert order(client, subject="ETH").status_code == 201
    # What was left is not given up: whoever holds the lease next goes on with it.
    assert {row["id"]: row["status"] for row in client.rows(JOBS)}["left"] == "running"


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_job_that_has_ended_does_not_stand_in_the_way(client: Client, engine: Engine, status: str) -> None:
    store(engine, job("ended", status=status))
    assert order(client).status_code == 201


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "kraken"}, "there is no source kraken; there is binance, pyth, replay, simulated"),
        ({"source": "../etc"}, "source"),
        ({"subject": ".."}, "subject"),
        ({"subject": "a/b"}, "subject"),
        ({"subject": "a\0b"}, "subject"),
        ({"subject": ""}, "subject"),
        ({"kind": "candles"}, "kind"),
        ({"granularity": "2m"}, "unknown granularity"),
        ({"start": "2026-02-03T00:00:00Z"}, "nothing to fetch"),
        ({"start": "2026-02-04T00:00:00Z"}, "nothing to fetch"),
        ({"start": "2026-03-01T12:00:00Z", "end": "2026-03-02T00:00:00Z"}, "nothing to fetch"),
        ({"start": "yesterday"}, "start"),
        ({"start": "0001-01-01T00:00:00+23:59"}, "must be from 1970-01-01"),
        ({"end": "9999-12-31T23:59:59-23:59"}, "must be from 1970-01-01"),
        ({"end": None}, "end"),
    ],
)
def test_what_cannot_be_fetched_is_422_and_no_job(client: Client, changes: dict[str, Any], said: str) -> None:
    answer = order(client, **changes)
    assert answer.status_code == 422
    assert said in answer.text
    assert client.rows(JOBS) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"status": "pending"}, 0.0),
        ({"status": "running", "cursor_ts": START}, 0.0),
        ({"status": "running", "cursor_ts": START + timedelta(hours=12)}, 25.0),
        ({"status": "failed", "cursor_ts": START + timedelta(hours=36), "error": "HTTP 401"}, 75.0),
        ({"status": "running", "cursor_ts": END + timedelta(hours=1)}, 100.0),
        ({"status": "completed", "cursor_ts": None}, 100.0),
        ({"status": "running", "cursor_ts": START, "end_ts": START}, 0.0),
    ],
)
def test_progress_is_the_share_of_the_time_range(
    client: Client, engine: Engine, values: dict[str, Any], expected: float
) -> None:
    store(engine, job("one", **values))
    row = client.rows(f"{JOBS}/one")
    assert (row["progress_pct"], row["error"]) == (expected, values.get("error"))


def test_jobs_come_newest_first_by_status_and_bounded(client: Client, engine: Engine) -> None:
    statuses = ["completed", "failed", "completed", "running"]
    store(engine, *(job(f"j{n}", status=s, created_at=NOW + timedelta(hours=n)) for n, s in enumerate(statuses)))
    assert [row["id"] for row in client.rows(JOBS)] == ["j3", "j2", "j1", "j0"]
    assert [row["id"] for row in client.rows(JOBS, limit=2)] == ["j3", "j2"]
    assert [row["id"] for row in client.rows(JOBS, status="completed")] == ["j2", "j0"]
    for wrong in ({"status": "dead"}, {"limit": 0}, {"limit": 1001}):
        assert client.get(JOBS, **wrong).status_code == 422
    answer = client.get(f"{JOBS}/none")
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no backfill job none")


def test_the_feeds_are_those_with_records_and_those_of_the_settings(client_of: ClientMaker, engine: Engine) -> None:
    client = client_of(FEED_SOURCE="simulated", FEED_SUBJECTS="BTC,ETH", FEED_KIND="candle", FEED_GRANULARITY="1m")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO feed_records (id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb)"
                " VALUES ('1', 'simulated', 'ETH', 'candle', '1m', :at, :at, '{}'),"
                " ('2', 'pyth', 'SOL', 'tick', '1s', :at, :at, '{}')"
            ),
            {"at": START},
        )
    rows = client.rows("/reports/backfill/feeds")
    assert [(row["source"], row["subject"], row["kind"], row["granularity"], row["record_count"]) for row in rows] == [
        ("pyth", "SOL", "tick", "1s", 1),
        ("simulated", "BTC", "candle", "1m", 0),
        ("simulated", "ETH", "candle", "1m", 1),
    ]


def test_the_index_lists_the_files_by_path(client_of: ClientMaker, tmp_path: Path) -> None:
    client = client_of(BACKFILL_DATA_DIR=str(tmp_path / "files"))
    assert client.rows("/data/backfill/index") == []
    folder = files(tmp_path / "files")
    files(tmp_path / "files", "ETH", days=1)
    (folder / "2026-02-02.parquet").write_bytes(b"damaged")
    (folder / ".2026-02-01.parquet.x.unfinished").write_bytes(b"half")
    (folder / "2026-02-30.parquet").write_bytes(b"of no day")
    size = (folder / "2026-02-01.parquet").stat().st_size
    rows = client.rows("/data/backfill/index")
    prefix = "simulated/{}/candle/1m/{}.parquet"
    assert rows[:2] == [
        {"path": prefix.format("BTC", "2026-02-01"), "date": "2026-02-01", "records": 1, "size_bytes": size},
        {"path": prefix.format("BTC", "2026-02-02"), "date": "2026-02-02", "records": None, "size_bytes": 7},
    ]
    assert [row["path"] for row in rows[2:]] == [prefix.format("ETH", "2026-02-01")]
    assert [row["path"] for row in client.rows("/data/backfill/index", subject="ETH")] == [rows[2]["path"]]
    assert client.rows("/data/backfill/index", kind="tick") == []
    assert client.get("/data/backfill/index", subject="..").status_code == 422


def test_a_file_comes_as_it_is_on_the_disk(client_of: ClientMaker, tmp_path: Path) -> None:
    client = client_of(BACKFILL_DATA_DIR=str(tmp_path))
    folder = files(tmp_path)
    for row in client.rows("/data/backfill/index"):
        answer = client.get(f"/data/backfill/{row['path']}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        assert int(answer.headers["content-length"]) == row["size_bytes"]
        assert answer.content == (folder / f"{row['date']}.parquet").read_bytes()
    (tmp_path / "given.parquet").write_bytes(answer.content)
    assert pq.read_table(tmp_path / "given.parquet").num_rows == 1


def test_no_other_file_can_be_had(engine: Engine, tmp_path: Path) -> None:
    """Over a real connection, because clients tidy paths before they send them."""
    root = tmp_path / "files"
    folder = files(root)
    outside = tmp_path / "2026-02-01.parquet"
    outside.write_bytes(b"tr3asure")
    (folder / "secret.txt").write_text("tr3asure")
    (folder / ".2026-02-01.parquet.x.unfinished").write_bytes(b"tr3asure")
    for name in ("link.parquet", "2026-03-01.parquet"):
        (folder / name).symlink_to(outside)
    with running(report_app(engine, BACKFILL_DATA_DIR=str(root))) as server:
        for target in NO_FILES:
            status, _, body = server.request("GET", f"/data/backfill/{target}")
            assert status == 404, target
            assert b"tr3asure" not in body
        assert server.request("GET", "/data/backfill/simulated/BTC/candle/1m/2026-02-01.parquet")[0] == 200


def test_orders_and_jobs_need_the_key_and_files_as_other_reading_does(client_of: ClientMaker, tmp_path: Path) -> None:
    files(tmp_path)
    for read_auth, expected in (("false", 200), ("true", 401)):
        client = client_of(API_KEY=KEY, API_READ_AUTH=read_auth, BACKFILL_DATA_DIR=str(tmp_path))
        for path in (JOBS, "/reports/backfill/feeds"):
            assert client.get(path).status_code == 401
        assert order(client).status_code == 401
        assert client.get("/data/backfill/index").status_code == expected
        assert client.get("/data/backfill/simulated/BTC/candle/1m/2026-02-01.parquet").status_code == expected
    with_key = client.request("POST", "/reports/backfill", json=ORDER, headers={"X-API-Key": KEY})
    assert with_key.status_code == 201
