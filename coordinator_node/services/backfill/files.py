"""The daily files of backfilled records: {source}/{subject}/{kind}/{granularity}/YYYY-MM-DD.parquet below one folder.

A day's file is written beside its place, brought to the disk, and renamed: whoever reads, and whenever a process is
killed, finds the old file or the new one, whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.file_names import UnsafeNameError, safe_name
from coordinator_node.entities.ids import new_id
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.backfill.parquet import (
    SCHEMA,
    UnreadableFileError,
    merged,
    read_table,
    row_count,
    to_table,
)

log = get_logger(__name__)

_DAY_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.parquet\Z")
_UNFINISHED = ".*.unfinished"


def feed_folder(root: Path, source: str, subject: str, kind: str, granularity: str) -> Path:
    """Where a feed's files are.

    Raises:
        UnsafeNameError: a name that would lead out of `root`, or that no folder can have.
    """
    names = {"source": source, "subject": subject, "kind": kind, "granularity": granularity}
    return root.joinpath(*(safe_name(what, name) for what, name in names.items()))


@dataclass(frozen=True)
class StagedDay:
    """A day's new file, on the disk beside its place. `damaged` says why the one in its place cannot be read."""

    unfinished: Path
    place: Path
    damaged: str | None

    def publish(self) -> None:
        """Put it in its place; a file there that cannot be read is set aside under another name."""
        if self.damaged is not None:
            aside = self.place.with_name(f"{self.place.name}.unreadable-{new_id()}")
            self.place.rename(aside)
            log.error("unreadable file set aside", file=str(self.place), now=str(aside), reason=self.damaged)
        self.unfinished.replace(self.place)
        _sync(self.place.parent)

    def discard(self) -> None:
        """Give it up."""
        self.unfinished.unlink(missing_ok=True)


def stage(folder: Path, records: Sequence[FeedRecord]) -> list[StagedDay]:
    """Write new files for the days of the records, merged with what is there: by time, the newer counts.

    Raises:
        OSError: the disk is full, or does not let us; what was written is removed.
    """
    staged: list[StagedDay] = []
    try:
        _make_folder(folder)
        in_order = sorted(records, key=lambda record: record.ts_event)
        for day, of_day in groupby(in_order, key=lambda record: record.ts_event.astimezone(UTC).date()):
            place = folder / f"{day.isoformat()}.parquet"
            old, damaged = _old(place)
            unfinished = folder / f".{place.name}.{new_id()}.unfinished"
            staged.append(StagedDay(unfinished, place, damaged))
            _write(unfinished, merged(old, to_table(list(of_day))))
    except BaseException:
        for day_file in staged:
            day_file.discard()
        raise
    return staged


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written; to be called by whoever alone may write there."""
    for path in folder.glob(_UNFINISHED):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class DayFile:
    """One day's file; `path` is relative to the root, `records` None where the file cannot be read."""

    path: str
    day: date
    size_bytes: int
    records: int | None


def list_files(
    root: Path, source: str | None, subject: str | None, kind: str | None, granularity: str | None, most: int
) -> list[DayFile]:
    """The files of the feeds that match (None matches all), by path; of more than `most`, those of the newest days.

    Raises:
        UnsafeNameError: a name that no folder can have.
    """
    names = {"source": source, "subject": subject, "kind": kind, "granularity": granularity}
    pattern = "/".join("*" if name is None else safe_name(what, name) for what, name in names.items())
    days = [(match[1], path) for path in root.glob(f"{pattern}/*") if (match := _DAY_FILE.fullmatch(path.name))]
    newest = sorted(days)[-most:]
    described = (_described(root, path, day) for day, path in newest)
    return sorted(filter(None, described), key=lambda file: file.path)


def find_file(root: Path, source: str, subject: str, kind: str, granularity: str, file: str) -> Path | None:
    """Where a day's file is; None where there is none, or where it would lie outside of `root`."""
    try:
        place = feed_folder(root, source, subject, kind, granularity) / file
    except UnsafeNameError:
        return None
    if not _DAY_FILE.fullmatch(file) or not place.is_file():
        return None
    # A link may lead elsewhere.
    return place if place.resolve().is_relative_to(root.resolve()) else None


def _described(root: Path, path: Path, day: str) -> DayFile | None:
    try:
        of_day, stat = date.fromisoformat(day), path.stat()
    except (ValueError, OSError):  # a name that is no day is nobody's file; one that is gone was replaced
        return None
    records = _counted(path, stat.st_mtime_ns, stat.st_size)
    return DayFile(path.relative_to(root).as_posix(), of_day, stat.st_size, records)


@lru_cache(maxsize=20_000)
def _counted(path: Path, changed: int, size: int) -> int | None:
    """The rows of a file as it was when it changed last; asked for anew only when it has changed."""
    return row_count(path)


def _old(place: Path) -> tuple[pa.Table, str | None]:
    """The rows that a day has, and why they cannot be read, where they cannot."""
    try:
        return read_table(place), None
    except FileNotFoundError:
        return SCHEMA.empty_table(), None
    except UnreadableFileError as error:
        return SCHEMA.empty_table(), str(error)


def _write(path: Path, table: pa.Table) -> None:
    with path.open("xb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that a power cut does not take their names."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
