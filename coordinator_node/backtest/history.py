"""The records that a backtest plays: daily Parquet files in the coordinator's layout, read into memory."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
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
    before = bisect_right(records, first, key=_time_of)
    for file in reversed([file for file in files if file.day < first.date()]):
        if before >= window:
            break
        older = _records_of(root, file, feed, subject)
        records, before = older + records, before + len(older)
    kept = records[max(before - window, 0) : bisect_right(records, last, key=_time_of)]
    return SubjectHistory(kept, [record.ts_event for record in kept])


def _time_of(record: FeedRecord) -> datetime:
    return record.ts_event


def _records_of(root: Path, file: DayFile, feed: FeedScope, subject: str) -> list[FeedRecord]:
    try:
        table = read_table(root / file.path)
    except (UnreadableFileError, OSError) as error:
        raise ConfigurationError(f"{error}; fetch that day again") from error
    return _records_in(table.sort_by("ts_event"), feed, subject)


def _records_in(table: pa.Table, feed: FeedScope, subject: str) -> list[FeedRecord]:
    micros = table.column("ts_event").cast(pa.int64()).to_numpy().tolist()
    times = [_EPOCH + timedelta(microseconds=moment) for moment in micros]
    known, lag = times, feed.lag
    if lag:
        known = [at + lag for at in times]
    rows, metas = _numbers_in(table), _metas_in(table)
    records = [
        FeedRecord(feed.source, subject, feed.kind, feed.granularity, at, values, meta, known_at)
        for at, values, meta, known_at in zip(times, rows, metas, known, strict=True)
    ]
    for record in records:
        if "values" in record.meta:
            record.values |= record.meta.pop("values")
    return records


def _numbers_in(table: pa.Table) -> list[dict[str, Any]]:
    """Each row's numbers by their names, without those that are null or not finite."""
    columns = {name: table.column(name).to_numpy() for name in NUMBERS if table.column(name).null_count < len(table)}
    if not columns:
        return [{} for _ in range(len(table))]
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    if all(np.isfinite(column).all() for column in columns.values()):
        return found
    return [{name: value for name, value in row.items() if math.isfinite(value)} for row in found]


def _metas_in(table: pa.Table) -> list[dict[str, Any]]:
    column = table.column("meta")
    if set(column.unique().to_pylist()) <= {None, _NO_META}:
        return [{} for _ in range(len(table))]
    return [{} if meta is None else json.loads(meta) for meta in column.to_pylist()]
