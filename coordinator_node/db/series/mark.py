"""Which part of time has its buckets kept."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from coordinator_node.db.json_text import encode_json
from coordinator_node.db.series.spans import LEVELS, MICROSECOND, Span, ceiling

KEY = "series_buckets"

_READ = text("SELECT value_jsonb FROM engine_state WHERE key = :key")
_WRITE = text(
    """
    INSERT INTO engine_state (key, value_jsonb, updated_at) VALUES (:key, CAST(:value AS jsonb), :now)
    ON CONFLICT (key) DO UPDATE SET value_jsonb = excluded.value_jsonb, updated_at = excluded.updated_at
    """
)


def kept_span(connection: Connection, value_field: str) -> Span | None:
    """Where buckets are kept; None where nowhere, or where they hold another field of the scores than `value_field`."""
    found = connection.execute(_READ, {"key": KEY}).scalar()
    if not found or found["value_field"] != value_field:
        return None
    return Span(datetime.fromisoformat(found["since"]), datetime.fromisoformat(found["until"]))


def set_kept_span(connection: Connection, span: Span, value_field: str, now: datetime) -> None:
    """Say that buckets are kept from `span.begin` to before `span.end`, both bounds of the narrowest ones."""
    value = {"since": span.begin.isoformat(), "until": span.end.isoformat(), "value_field": value_field}
    connection.execute(_WRITE, {"key": KEY, "value": encode_json(value), "now": now})


def keep_only_after(connection: Connection, changed: datetime, now: datetime) -> None:
    """Say that of what is kept only the buckets after a moment are, because the rows up to it have changed."""
    found = connection.execute(_READ, {"key": KEY}).scalar()
    if not found:
        return
    value_field = found["value_field"]
    kept = kept_span(connection, value_field)
    if kept is not None:
        # A bound of buckets lies in one of predictions after it, and in one of snapshots before it.
        begin = min(ceiling(changed + MICROSECOND, LEVELS[0]), kept.end)
        set_kept_span(connection, Span(max(kept.begin, begin), kept.end), value_field, now)
