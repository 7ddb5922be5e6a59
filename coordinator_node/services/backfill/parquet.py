"""Records as rows of a Parquet file, merged with those that are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coordinator_node.entities.feed_record import FeedRecord

NUMBERS = ("open", "high", "low", "close", "volume", "price")
SCHEMA = pa.schema(
    [
        ("ts_event", pa.timestamp("us", tz="UTC")),
        ("source", pa.string()),
        ("subject", pa.string()),
        ("kind", pa.string()),
        ("granularity", pa.string()),
        *((name, pa.float64()) for name in NUMBERS),
        ("meta", pa.string()),
    ]
)
"""`meta` is JSON: the record's meta and, under `values`, what else the record holds, such as the levels of a book."""


class UnreadableFileError(ValueError):
    """A file that is no Parquet file of records; the message names it."""


def to_table(records: Sequence[FeedRecord]) -> pa.Table:
    """The records as a table of SCHEMA, in their order; a number that a record does not have is null."""
    columns: dict[str, list[Any]] = {
        name: [getattr(record, name) for record in records] for name in SCHEMA.names if name not in (*NUMBERS, "meta")
    }
    for name in NUMBERS:
        columns[name] = [_number(record.values.get(name)) for record in records]
    columns["meta"] = [json.dumps(_meta(record), allow_nan=False, sort_keys=True) for record in records]
    return pa.table(columns, schema=SCHEMA)


def read_table(path: Path) -> pa.Table:
    """The rows of a file, as a table of SCHEMA.

    Raises:
        UnreadableFileError: it is damaged, no Parquet file, or one of other columns.
        OSError: the disk does not give it.
    """
    try:
        with path.open("rb") as file:
            return pq.read_table(file).select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        raise UnreadableFileError(f"{path} is no Parquet file of records: {' '.join(str(error).split())}") from error


def merged(old: pa.Table, new: pa.Table) -> pa.Table:
    """The rows of both in time order; where both have a time, or one has it twice, the last counts."""
    both = pa.concat_tables([old, new])
    numbered = both.append_column("row", pa.array(np.arange(both.num_rows)))
    last = numbered.group_by("ts_event").aggregate([("row", "max")]).sort_by("ts_event")
    return both.take(last.column("row_max"))


def row_count(path: Path) -> int | None:
    """How many rows a file says that it has; None where it cannot be read."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return None


def _meta(record: FeedRecord) -> dict[str, Any]:
    others = {name: value for name, value in record.values.items() if _number(value) is None or name not in NUMBERS}
    return {**record.meta, "values": others} if others else record.meta


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None
