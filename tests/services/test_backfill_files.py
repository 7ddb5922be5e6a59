"""The daily files: whole at every moment, merged by time, and never outside of their folder."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.file_names import UnsafeNameError
from coordinator_node.services.backfill import files
from coordinator_node.services.backfill.files import clear_unfinished, feed_folder, find_file, list_files, stage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = {
    "ts_event": pa.timestamp("us", tz="UTC"),
    "source": pa.string(),
    "subject": pa.string(),
    "kind": pa.string(),
    "granularity": pa.string(),
    "open": pa.float64(),
    "high": pa.float64(),
    "low": pa.float64(),
    "close": pa.float64(),
    "volume": pa.float64(),
    "price": pa.float64(),
    "meta": pa.string(),
}


def record(at: datetime, price: float = 1.0, meta: dict[str, Any] | None = None, **values: Any) -> FeedRecord:
    return FeedRecord("venue", "BTC", "tick", "1s", at, values or {"price": price}, meta or {})


def store(folder: Path, *records: FeedRecord) -> None:
    for day in stage(folder, records):
        day.publish()


def prices(file: Path) -> dict[datetime, float]:
    table = pq.read_table(file)
    return dict(zip(table["ts_event"].to_pylist(), table["price"].to_pylist(), strict=True))


def test_records_become_a_file_a_day_with_the_documented_columns(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    late = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    store(folder, record(late + timedelta(microseconds=1), 3.0), record(late, 2.0), record(NOON))
    assert sorted(os.listdir(folder)) == ["2026-03-01.parquet", "2026-03-02.parquet"]
    table = pq.read_table(folder / "2026-03-01.parquet")
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == COLUMNS
    assert prices(folder / "2026-03-01.parquet") == {NOON: 1.0, late: 2.0}
    assert prices(folder / "2026-03-02.parquet") == {late + timedelta(microseconds=1): 3.0}


def test_a_row_holds_all_of_a_record(tmp_path: Path) -> None:
    values = {"open": 1, "high": 2.5, "low": "none", "close": 2, "volume": 10**18, "trades": 7}
    store(tmp_path, record(NOON, meta={"final": True}, **values))
    (row,) = pq.read_table(tmp_path / "2026-03-01.parquet").to_pylist()
    meta = json.loads(row.pop("meta"))
    assert row == {
        "ts_event": NOON,
        "source": "venue",
        "subject": "BTC",
        "kind": "tick",
        "granularity": "1s",
        "open": 1.0,
        "high": 2.5,
        "low": None,
        "close": 2.0,
        "volume": 1e18,
        "price": None,
    }
    assert meta == {"final": True, "values": {"trades": 7, "low": "none"}}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.floats(-1, 1)), min_size=1, max_size=6), max_size=4))
def test_pages_are_merged_by_time_and_the_newest_wins(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[tuple[int, float]]]
) -> None:
    folder = tmp_path_factory.mktemp("feed")
    expected: dict[datetime, float] = {}
    for page in pages:
        store(folder, *(record(NOON + timedelta(hours=6 * at), price) for at, price in page))
        expected |= {NOON + timedelta(hours=6 * at): price for at, price in page}
    found: dict[datetime, float] = {}
    for file in sorted(folder.iterdir()):
        of_day = prices(file)
        assert list(of_day) == sorted(of_day)
        found |= of_day
    assert found == expected


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_at_any_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    store(tmp_path, record(NOON))

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fails)
    with pytest.raises(OSError, match="No space left"):
        store(tmp_path, record(NOON, 2.0))
    monkeypatch.undo()
    assert prices(tmp_path / "2026-03-01.parquet") == {NOON: 1.0}
    assert list_files(tmp_path, None, None, None, None, 10) == []


def test_what_a_killed_process_left_half_written_is_no_file_and_goes(tmp_path: Path) -> None:
    folder = feed_folder(tmp_path, "venue", "BTC", "tick", "1s")
    stage(folder, [record(NOON)])
    assert len(os.listdir(folder)) == 1
    assert list_files(tmp_path, None, None, None, None, 10) == []
    clear_unfinished(folder)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", None])
def test_an_unreadable_file_is_set_aside_and_kept(tmp_path: Path, content: bytes | None) -> None:
    place = tmp_path / "2026-03-01.parquet"
    if content is None:
        pq.write_table(pa.table({"time": [1], "close": [2.0]}), place)
        content = place.read_bytes()
    place.write_bytes(content)
    store(tmp_path, record(NOON))
    assert prices(place) == {NOON: 1.0}
    (aside,) = tmp_path.glob("*.unreadable-*")
    assert aside.read_bytes() == content


def test_every_step_reaches_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.split('.')[-1]}")
        fsync(descriptor)

    def noted_replace(source: Any, target: Any) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    store(tmp_path / "new", record(NOON))
    assert done == [f"sync {tmp_path.name}", "sync unfinished", "rename", "sync new"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a\\b", ".hidden", "a\x00", "a\n", "BTC\n", "*", "é", "a" * 101, "-x", "a b"]
)
def test_names_that_could_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeNameError, match="subject"):
        feed_folder(tmp_path, "venue", name, "tick", "1s")
    with pytest.raises(UnsafeNameError):
        list_files(tmp_path, None, name, None, None, 10)
    assert find_file(tmp_path, "venue", name, "tick", "1s", "2026-03-01.parquet") is None


def test_only_day_files_within_the_folder_are_found(tmp_path: Path) -> None:
    root = tmp_path / "data"
    store(feed_folder(root, "venue", "BTC", "tick", "1s"), record(NOON))
    outside = tmp_path / "2026-03-01.parquet"
    outside.write_bytes(b"secret")
    folder = feed_folder(root, "venue", "EVIL", "tick", "1s")
    folder.mkdir(parents=True)
    (folder / "2026-03-01.parquet").symlink_to(outside)
    (folder / "notes.txt").write_text("x")

    feed = ("venue", "BTC", "tick", "1s")
    assert find_file(root, *feed, "2026-03-01.parquet") == feed_folder(root, *feed) / "2026-03-01.parquet"
    assert find_file(root, *feed, "2026-03-02.parquet") is None
    assert find_file(root, "venue", "EVIL", "tick", "1s", "2026-03-01.parquet") is None
    assert find_file(root, "venue", "EVIL", "tick", "1s", "notes.txt") is None
    for file in ("../1s/2026-03-01.parquet", "..", "", "2026-03-01.parquet\n", ".2026-03-01.parquet.x.unfinished"):
        assert find_file(root, *feed, file) is None


def test_the_list_is_by_path_and_of_too_many_the_newest_days(tmp_path: Path) -> None:
    for subject in ("ETH", "BTC"):
        folder = feed_folder(tmp_path, "venue", subject, "tick", "1s")
        store(folder, *(record(NOON + timedelta(days=day)) for day in range(3)), record(NOON + timedelta(hours=1)))
    found = list_files(tmp_path, None, None, None, None, 10)
    assert [(file.path, file.day.day, file.records) for file in found] == [
        (f"venue/{subject}/tick/1s/2026-03-0{day}.parquet", day, 2 if day == 1 else 1)
        for subject in ("BTC", "ETH")
        for day in (1, 2, 3)
    ]
    assert found[0].size_bytes == (tmp_path / found[0].path).stat().st_size
    assert [file.day.day for file in list_files(tmp_path, None, None, None, None, 4)] == [2, 3, 2, 3]
    assert {file.path.split("/")[1] for file in list_files(tmp_path, "venue", "ETH", None, None, 10)} == {"ETH"}
    assert list_files(tmp_path / "nothing", None, None, None, None, 10) == []

    damaged = tmp_path / found[0].path
    damaged.write_bytes(b"x" * found[0].size_bytes)
    os.utime(damaged, ns=(1, 1))
    assert list_files(tmp_path, None, None, None, None, 10)[0].records is None


def test_rows_are_counted_once_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Path] = []
    monkeypatch.setattr(files, "row_count", counted.append)
    store(feed_folder(tmp_path, "venue", "BTC", "tick", "1s"), record(NOON))
    for _ in range(3):
        list_files(tmp_path, None, None, None, None, 10)
    assert len(counted) == 1
