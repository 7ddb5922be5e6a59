"""The columns of a Parquet or CSV file as arrays; an error names the file, the row (from 1) and what to correct."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from coordinator_node.entities.times import as_utc
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.micros import epoch_micros

LATEST_SECONDS = 1e11
"""The year 5138; a time beyond it was written in milliseconds or finer and read as seconds."""


def read_table(path: Path) -> Any:
    """The file as a pyarrow table; raises PermanentFeedError where it cannot be read."""
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise PermanentFeedError(f"{path} is neither .parquet nor .csv: set FEED_OPT_path to a file of either kind")
    try:
        if suffix == ".parquet":
            return pa.parquet.read_table(path, partitioning=None)
        # Only an empty cell is a missing value: NaN is a number that is refused by its own name.
        return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(null_values=[""]))
    except (OSError, pa.ArrowException) as error:
        raise PermanentFeedError(f"{path} cannot be read: {error}") from error


def times_of(path: Path, column: Any) -> NDArray[np.int64]:
    """A column of times as epoch microseconds; a time without a zone is read as UTC."""
    _refuse_nulls(path, "ts_event", column)
    micros = _micros(path, column)
    too_large = np.abs(micros) > LATEST_SECONDS * 1e6
    _refuse_where(path, too_large, "ts_event is thousands of years off; milliseconds taken for seconds, perhaps")
    return micros


def _micros(path: Path, column: Any) -> NDArray[np.int64]:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        zone = getattr(column.type, "tz", None)
        micros = column.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
        return np.asarray(micros.to_numpy(), dtype=np.int64)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        seconds = np.clip(numbers_of(path, "ts_event", column), -2 * LATEST_SECONDS, 2 * LATEST_SECONDS)
        return np.round(seconds * 1e6).astype(np.int64)
    return np.array([_parsed_time(path, row, text) for row, text in enumerate(column.to_pylist(), 1)], dtype=np.int64)


def _parsed_time(path: Path, row: int, text: object) -> int:
    try:
        return epoch_micros(as_utc(datetime.fromisoformat(str(text).strip())))
    except ValueError:
        raise PermanentFeedError(
            f"{path}, row {row}: ts_event {text!r} is not a time: write 2019-10-11T00:00:00Z, or epoch seconds"
        ) from None


def numbers_of(path: Path, name: str, column: Any) -> NDArray[np.float64]:
    """A column as finite floats."""
    _refuse_nulls(path, name, column)
    try:
        numbers = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        raise PermanentFeedError(_not_a_number(path, name, column)) from None
    _refuse_where(path, ~np.isfinite(numbers), f"{name} is not a finite number")
    return numbers


def _not_a_number(path: Path, name: str, column: Any) -> str:
    for row, value in enumerate(column.to_pylist(), 1):
        try:
            float(value)
        except (TypeError, ValueError):
            return f"{path}, row {row}: {name} is {value!r}, expected a number"
    return f"{path}: {name} is of type {column.type}, expected numbers"


def _refuse_nulls(path: Path, name: str, column: Any) -> None:
    if column.null_count:
        _refuse_where(path, column.is_null().to_numpy(), f"{name} is empty")


def _refuse_where(path: Path, bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise PermanentFeedError(f"{path}, row {int(bad.argmax()) + 1}: {what}; correct or remove the row")
