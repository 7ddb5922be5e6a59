"""The records that a backtest plays: daily Parquet files in the coordinator's layout, read into memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.backfill.files import DayFile, feed_folder, list_files
from coordinator_node.services.backfill.parquet import NUMBERS, UnreadableFileError, read_table
from coordinator_node.services.feed_scope import FeedScope

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_FILES = 1_000_000
_NO_META = "{}"


@dataclass(frozen=True)
class SubjectHistory:
    """One subject's records in time order, and their ts_event."""

    records: list[FeedRecord]
    times: list[datetime]

    @property
    def newest(self) -> datetime | None:
        """The ts_event of the last one; None where there is none."""
        return self.times[-1] if self.times else None


@dataclass(frozen=True)
class History:
    """The records of every subject that a backtest is about; one without records has an empty history."""

    feed: FeedScope
    subjects: dict[str, SubjectHistory]


def found_feeds(root: Path) -> list[tuple[str, str, str]]:
    """The (source, kind, granularity) that a folder has files of, by name."""
    parts = [file.path.split("/") for file in list_files(root, None, None, None, None, _MOST_FILES)]
    return sorted({(source, kind, granularity) for source, _, kind, granularity, _ in parts})


def read_history(
    root: Path, feed: FeedScope, subjects: Sequence[str], start: datetime, end: datetime, window: int
) -> History:
    """The records that are known in [start, end], and enough older ones for a model's first window.

    Args:
        root: the folder of {source}/{subject}/{kind}/{granularity}/YYYY-MM-DD.parquet.
        feed: which feed.
        subjects: its subjects.
        start: the first moment that is played.
        end: the last moment that an outcome is looked for.
        window: how many records a model is given at once.

    Raises:
        ConfigurationError: there is no record of any of the subjects in [start, end], or a file cannot be read.
    """
    found = {subject: _read_subject(root, feed, subject, start, end, window) for subject in subjects}
    if not any(own.newest is not None and own.newest + feed.lag >= start for own in found.values()):
        folders = ", ".join(str(_folder(root, feed, subject)) for subject in subjects)
        raise ConfigurationError(
            f"no record between {start.isoformat()} and {end.isoformat()} in {folders}; fetch it with"
            " `coordinator-node backfill --from … --to …`, or name another folder or period"
        )
    return History(feed, found)


def _folder(root: Path, feed: FeedScope, subject: str) -> Path:
    return feed_folder(root, feed.source, subject, feed.kind, feed.granularity)


def _read_subject(
    root: Path, feed: FeedScope, subject: str, start: datetime, end: datetime, window: int
) -> SubjectHistory:
    first, last = (start - feed.lag).astimezone(UTC), (end - feed.lag).astimezone(UTC)
    files = list_files(root, feed.source, subject, feed.kind, feed.granularity, _MOST_FILES)
    played = [file for file in files if first.date() <= file.day <= last.date()]
    records = [record for file in played for record in _records_of(root, file, feed, subject)]
    before = sum(record.ts_event <= first for record in records)
    for file in reversed([file for file in files if file.day < first.date()]):
        if before >= window:
            break
        older = list(_records_of(root, file, feed, subject))
        records, before = older + records, before + len(older)
    kept = [record for record in records[max(before - window, 0) :] if record.ts_event <= last]
    return SubjectHistory(kept, [record.ts_event for record in kept])


def _records_of(root: Path, file: DayFile, feed: FeedScope, subject: str) -> Iterator[FeedRecord]:
    try:
        table = read_table(root / file.path)
    except (UnreadableFileError, OSError) as error:
        raise ConfigurationError(f"{error}; fetch that day again") from error
    return _records_in(table.sort_by("ts_event"), feed, subject)


def _records_in(table: pa.Table, feed: FeedScope, subject: str) -> Iterator[FeedRecord]:
    micros = table.column("ts_event").cast(pa.int64()).to_pylist()
    there = [name for name in NUMBERS if table.column(name).null_count < table.num_rows]
    columns = [table.column(name).to_pylist() for name in there]
    rows = zip(*columns, strict=True) if columns else ((),) * table.num_rows
    metas = table.column("meta").to_pylist()
    lag = feed.lag
    for moment, row, meta in zip(micros, rows, metas, strict=True):
        values: dict[str, Any] = dict(zip(there, row, strict=True))
        if not all(map(_is_number, row)):
            values = {name: value for name, value in values.items() if _is_number(value)}
        others: dict[str, Any] = {} if meta is None or meta == _NO_META else json.loads(meta)
        if "values" in others:
            values |= others.pop("values")
        at = _EPOCH + timedelta(microseconds=moment)
        yield FeedRecord(feed.source, subject, feed.kind, feed.granularity, at, values, others, at + lag)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def days_needed(start: datetime, end: datetime, feed: FeedScope, window: int) -> tuple[date, date]:
    """The first and the last day whose files a backtest reads, where the feed has no gaps."""
    first = start - feed.lag - timedelta(seconds=feed.spacing * window)
    return first.astimezone(UTC).date(), end.astimezone(UTC).date()
