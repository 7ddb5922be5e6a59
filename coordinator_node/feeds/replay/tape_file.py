"""Reads a Parquet or CSV file of candles or trades, and refuses one that could not be replayed truly.

Columns (others are ignored):

- candles: `ts_event` (the open time), `open`, `high`, `low`, `close`, `volume`; times strictly ascending.
- trades: `ts_event`, `price`, `amount`; times ascending, several trades may share one.
- either: `subject`, where the file holds several; times then ascend within each subject.

`ts_event` is a timestamp or ISO 8601 text (without a zone it is read as UTC), or epoch seconds. Every error names the
file, and the row, counted from 1 without a CSV's header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator_node.entities.granularity import GRANULARITY_SECONDS
from coordinator_node.feeds.contracts import FeedDataKind
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.replay.columns import numbers_of, read_table, times_of

CANDLE_COLUMNS = ("open", "high", "low", "close", "volume")
TRADE_COLUMNS = ("price", "amount")


@dataclass(frozen=True)
class Series:
    """One subject's rows in file order: row numbers, event times in epoch microseconds, and a column for each value."""

    rows: NDArray[np.int64]
    times: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TapeFile:
    """A file that was read and found good.

    `series` is keyed by subject; a file without a `subject` column has the one key None: it holds one subject and
    does not say which.
    """

    path: Path
    kind: FeedDataKind
    series: Mapping[str | None, Series]


class FileDescription(NamedTuple):
    """What a file says about itself: the kind and granularity to configure, and its subjects.

    The subjects are those of its `subject` column, sorted; without one, a single guess from the file's name.
    """

    kind: FeedDataKind
    granularity: str
    subjects: tuple[str, ...]


def describe_file(path: str | Path) -> FileDescription:
    """What to configure for a file: its kind; the smallest spacing of its candles, `1s` for trades; its subjects.

    The guess of a subject is the file name's part before the first hyphen: XRPETH for XRPETH-1m-2019-10.parquet.

    Raises:
        PermanentFeedError: as `read_tape_file` and `candle_granularity`.
    """
    return describe(read_tape_file(path))


def describe(file: TapeFile) -> FileDescription:
    """As `describe_file`, of a file that was read already."""
    named = tuple(sorted(subject for subject in file.series if subject is not None))
    guess = file.path.name.split(".")[0].split("-")[0] or file.path.stem
    granularity = "1s" if file.kind == FeedDataKind.TICK else candle_granularity(file)
    return FileDescription(file.kind, granularity, named or (guess,))


def candle_granularity(file: TapeFile) -> str:
    """The granularity whose spacing is the smallest between two candles of one subject.

    Raises:
        PermanentFeedError: there are no two candles, or no such granularity.
    """
    smallest = _smallest_gap(file)
    for granularity, spacing in GRANULARITY_SECONDS.items():
        if spacing == smallest.seconds:
            return granularity
    raise PermanentFeedError(
        f"{file.path}, row {smallest.row}: {smallest.seconds:g} s after the row before, which is no granularity; "
        f"give a file of {', '.join(GRANULARITY_SECONDS)} candles, or correct the row"
    )


class Gap(NamedTuple):
    """The time between a row and its subject's row before."""

    seconds: float
    row: int


def gaps(series: Series) -> list[Gap]:
    """The times between the rows of one subject, in file order."""
    steps = (np.diff(series.times) / 1e6).tolist()
    return [Gap(seconds, row) for seconds, row in zip(steps, series.rows[1:].tolist(), strict=True)]


def _smallest_gap(file: TapeFile) -> Gap:
    smallest = min((gap for series in file.series.values() for gap in gaps(series)), default=None)
    if smallest is None:
        raise PermanentFeedError(
            f"{file.path} holds no two candles of one subject, and so does not say its granularity: add rows"
        )
    return smallest


def read_tape_file(path: str | Path) -> TapeFile:
    """Reads and checks a file.

    Raises:
        PermanentFeedError: it cannot be read, has no rows, lacks a column, or holds a time or number that is missing,
            unreadable, not finite, or out of order.
    """
    path = Path(path)
    table = read_table(path)
    kind = _kind_of(path, table.column_names)
    value_columns = CANDLE_COLUMNS if kind == FeedDataKind.CANDLE else TRADE_COLUMNS
    if table.num_rows == 0:
        raise PermanentFeedError(f"{path} has no rows: give a file with at least one")
    times = times_of(path, table.column("ts_event"))
    columns = {name: numbers_of(path, name, table.column(name)) for name in value_columns}
    series = {
        subject: Series(rows + 1, times[rows], {name: column[rows] for name, column in columns.items()})
        for subject, rows in _rows_by_subject(path, table).items()
    }
    for each in series.values():
        _check_order(path, each, strictly=kind == FeedDataKind.CANDLE)
    return TapeFile(path, kind, series)


def _kind_of(path: Path, names: list[str]) -> FeedDataKind:
    missing_candle = [name for name in ("ts_event", *CANDLE_COLUMNS) if name not in names]
    missing_trade = [name for name in ("ts_event", *TRADE_COLUMNS) if name not in names]
    if not missing_candle:
        return FeedDataKind.CANDLE
    if not missing_trade:
        return FeedDataKind.TICK
    raise PermanentFeedError(
        f"{path} holds neither candles (it lacks {', '.join(missing_candle)}) "
        f"nor trades (it lacks {', '.join(missing_trade)}); its columns are {', '.join(names)}"
    )


def _rows_by_subject(path: Path, table: Any) -> dict[str | None, NDArray[np.int64]]:
    """The row positions of each subject, in file order."""
    if "subject" not in table.column_names:
        return {None: np.arange(table.num_rows, dtype=np.int64)}
    rows: dict[str | None, list[int]] = {}
    for position, subject in enumerate(table.column("subject").to_pylist()):
        if subject is None or not str(subject).strip():
            raise PermanentFeedError(f"{path}, row {position + 1}: the subject is empty")
        rows.setdefault(str(subject), []).append(position)
    return {subject: np.array(positions, dtype=np.int64) for subject, positions in rows.items()}


def _check_order(path: Path, series: Series, *, strictly: bool) -> None:
    steps = np.diff(series.times)
    bad = steps <= 0 if strictly else steps < 0
    if bad.any():
        at = int(bad.argmax())
        rows = f"{path}, row {series.rows[at + 1]}: ts_event is"
        if steps[at] == 0:
            raise PermanentFeedError(f"{rows} the same as row {series.rows[at]}'s; keep one candle for each time")
        raise PermanentFeedError(f"{rows} earlier than row {series.rows[at]}'s; sort the file by time")
