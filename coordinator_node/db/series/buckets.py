"""Makes the kept buckets, all of a span at once; made again over the same rows they are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, text

from coordinator_node.db.series.prediction_sums import COLUMNS, merged, summed_rows
from coordinator_node.db.series.snapshot_sums import (
    counts,
    latest_summaries,
    merged_counts,
    merged_latest,
    merged_numbers,
    merged_scopes,
    merged_windows,
    number_sums,
    scope_parts,
    window_parts,
)
from coordinator_node.db.series.spans import LEVELS, MICROSECOND, Span, bounded, ceiling, floor, joined

_EPOCH = "TIMESTAMPTZ '1970-01-01 00:00:00+00'"


def bucket_begin(column: str, width: str) -> str:
    """The begin of a moment's bucket where a bucket is [begin, end), as SQL; the width is an interval."""
    return f"date_bin({width}, {column}, {_EPOCH})"


def bucket_end(column: str, width: str) -> str:
    """The end of a moment's bucket where a bucket is (begin, end], as SQL; the width is an interval."""
    return f"date_bin({width}, {column} - interval '1 microsecond', {_EPOCH}) + {width}"


def prediction_spans(moments: Iterable[datetime], kept: Span) -> list[Span]:
    """The narrowest kept buckets, [begin, end), that hold one of the moments; neighbours are made one."""
    return _spans({floor(moment, LEVELS[0]) for moment in moments}, kept)


def snapshot_spans(moments: Iterable[datetime], kept: Span) -> list[Span]:
    """The same where buckets are (begin, end]."""
    return _spans({floor(moment - MICROSECOND, LEVELS[0]) for moment in moments}, kept)


def make_prediction_buckets(connection: Connection, spans: Sequence[Span], value_field: str) -> None:
    """Make the buckets of predictions in these spans, of bounds of the narrowest buckets, and all wider ones anew."""
    own: dict[str, Any] = {"value_field": value_field}
    rows = summed_rows(bucket_begin("prediction.performed_at", _interval(LEVELS[0])), _in_rows(spans, own))
    _replace(connection, "prediction_buckets", "begins_at", LEVELS[0], spans, COLUMNS, rows, own)
    for finer, width in pairwise(LEVELS):
        wider = _widened(spans, width)
        values: dict[str, Any] = {}
        inside = bounded("begins_at", wider, values, ends_belong=False)
        source = f"prediction_buckets WHERE width_seconds = {finer} AND {inside}"
        select = merged(source, bucket_begin("begins_at", _interval(width)))
        _replace(connection, "prediction_buckets", "begins_at", width, wider, COLUMNS, select, values)


def make_snapshot_buckets(connection: Connection, spans: Sequence[Span], value_field: str) -> None:
    """Make the buckets of snapshots in these spans, likewise."""
    own: dict[str, Any] = {"value_field": value_field}
    inside = bounded("period_end", spans, own, ends_belong=True)
    at = bucket_end("period_end", _interval(LEVELS[0]))
    parts = [make(at, inside) for make in (window_parts, counts, latest_summaries, scope_parts, number_sums)]
    _replace(connection, "snapshot_buckets", "ends_at", LEVELS[0], spans, _SNAPSHOT_COLUMNS, _whole(*parts), own)
    for finer, width in pairwise(LEVELS):
        wider = _widened(spans, width)
        values: dict[str, Any] = {}
        inside = f"width_seconds = {finer} AND {bounded('ends_at', wider, values, ends_belong=True)}"
        at = bucket_end("ends_at", _interval(width))
        merging = (merged_windows, merged_counts, merged_latest, merged_scopes, merged_numbers)
        parts = [make(at, inside) for make in merging]
        _replace(connection, "snapshot_buckets", "ends_at", width, wider, _SNAPSHOT_COLUMNS, _whole(*parts), values)


_SNAPSHOT_COLUMNS = (
    "ends_at, model_id, total, weight, missing, snapshots, prediction_count, period_start, period_end,"
    " latest_jsonb, scopes_jsonb, numbers_jsonb"
)


def _whole(windows: str, counted: str, latest: str, scopes: str, numbers: str) -> str:
    """The rows of snapshot_buckets, from statements for their five parts."""
    return f"""
        SELECT {_SNAPSHOT_COLUMNS}
        FROM ({windows}) AS windows (ends_at, model_id, total, weight, missing)
        JOIN ({counted}) AS counted (ends_at, model_id, snapshots, prediction_count, period_start, period_end)
             USING (ends_at, model_id)
        LEFT JOIN ({latest}) AS latest (ends_at, model_id, latest_jsonb) USING (ends_at, model_id)
        LEFT JOIN (
            SELECT ends_at, model_id, jsonb_object_agg(scope_key, jsonb_build_array(total, weight, missing))
            FROM ({scopes}) AS scopes (ends_at, model_id, scope_key, total, weight, missing) GROUP BY 1, 2
        ) AS by_scope (ends_at, model_id, scopes_jsonb) USING (ends_at, model_id)
        LEFT JOIN (
            SELECT ends_at, model_id, jsonb_object_agg(name, jsonb_build_array(total, weight))
            FROM ({numbers}) AS numbers (ends_at, model_id, name, total, weight) GROUP BY 1, 2
        ) AS by_name (ends_at, model_id, numbers_jsonb) USING (ends_at, model_id)
    """  # noqa: S608 - put together from constants of this package and names of parameters


def _replace(
    connection: Connection,
    table: str,
    bound: str,
    width: int,
    spans: Sequence[Span],
    columns: str,
    select: str,
    values: dict[str, Any],
) -> None:
    """Put what a statement selects in the place of a table's buckets of one width in some spans."""
    old: dict[str, Any] = {}
    inside = bounded(bound, spans, old, ends_belong=bound == "ends_at")
    connection.execute(
        text(f"DELETE FROM {table} WHERE width_seconds = {width} AND {inside}"),  # noqa: S608 - constants of this module
        old,
    )
    connection.execute(
        text(f"INSERT INTO {table} (width_seconds, {columns}) SELECT {width}, made.* FROM ({select}) AS made"),  # noqa: S608 - constants of this module
        values,
    )


def _in_rows(spans: Sequence[Span], values: dict[str, Any]) -> str:
    return bounded("prediction.performed_at", spans, values, ends_belong=False)


def _spans(begins: Iterable[datetime], kept: Span) -> list[Span]:
    return joined(Span(begin, ceiling(begin + MICROSECOND, LEVELS[0])) for begin in begins if _within(begin, kept))


def _within(begin: datetime, kept: Span) -> bool:
    return kept.begin <= begin < kept.end


def _widened(spans: Sequence[Span], width: int) -> list[Span]:
    """The spans up to the bounds of wider buckets."""
    return joined(Span(floor(span.begin, width), ceiling(span.end, width)) for span in spans)


def _interval(width: int) -> str:
    return f"interval '{width} seconds'"
