"""Feeds and their newest records.

No statement here reads more of feed_records than COUNTED rows, the newest of each feed: which feeds there are is found
by skipping through the unique index from one to the next, the oldest and newest time by looking at its ends.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from coordinator_node.db.reports.records import Record, fetch

COUNTED = 100_000
"""Records that are counted, of all feeds together."""

LEAST_COUNTED = 1000
"""Of each feed, however many there are."""

_FEEDS = """
    WITH RECURSIVE stored AS (
        (SELECT source, subject, kind, granularity FROM feed_records
         ORDER BY source, subject, kind, granularity LIMIT 1)
        UNION ALL
        SELECT following.* FROM stored CROSS JOIN LATERAL (
            SELECT r.source, r.subject, r.kind, r.granularity FROM feed_records r
            WHERE (r.source, r.subject, r.kind, r.granularity)
                > (stored.source, stored.subject, stored.kind, stored.granularity)
            ORDER BY r.source, r.subject, r.kind, r.granularity LIMIT 1
        ) following
    )
"""
_SUMMARIES = text(
    _FEEDS  # noqa: S608 - both parts are constants of this module
    + """,
    feeds AS (SELECT * FROM stored UNION SELECT source, subject, kind, granularity FROM feed_ingestion_state)
    SELECT feed.*, newest.counted, newest.counted_from,
           (SELECT min(ts_event) FROM feed_records r
            WHERE r.source = feed.source AND r.subject = feed.subject
              AND r.kind = feed.kind AND r.granularity = feed.granularity) AS oldest_ts,
           newest.newest_ts, state.last_event_ts AS watermark_ts, state.updated_at AS watermark_updated_at
    FROM feeds feed
    CROSS JOIN LATERAL (
        SELECT count(*) AS counted, min(ts_event) AS counted_from, max(ts_event) AS newest_ts FROM (
            SELECT r.ts_event FROM feed_records r
            WHERE r.source = feed.source AND r.subject = feed.subject
              AND r.kind = feed.kind AND r.granularity = feed.granularity
            ORDER BY r.ts_event DESC LIMIT (SELECT greatest(:counted / greatest(count(*), 1), :least) FROM feeds)
        ) records
    ) newest
    LEFT JOIN feed_ingestion_state state USING (source, subject, kind, granularity)
    ORDER BY source, subject, kind, granularity
    LIMIT :limit
    """
)
_TAIL = text(
    _FEEDS  # noqa: S608 - both parts are constants of this module
    + """
    SELECT newest.source, newest.subject, newest.kind, newest.granularity, newest.ts_event, newest.ts_ingested,
           newest.values_jsonb AS values, newest.meta_jsonb AS meta
    FROM stored CROSS JOIN LATERAL (
        SELECT * FROM feed_records r
        WHERE r.source = stored.source AND r.subject = stored.subject
          AND r.kind = stored.kind AND r.granularity = stored.granularity
          AND (CAST(:after_ts AS timestamptz) IS NULL OR r.ts_event < :after_ts OR (r.ts_event = :after_ts AND
               (r.source, r.subject, r.kind, r.granularity)
               > (:after_source, :after_subject, :after_kind, :after_granularity)))
        ORDER BY r.ts_event DESC LIMIT :limit
    ) newest
    WHERE stored.source = coalesce(CAST(:source AS text), stored.source)
      AND stored.subject = coalesce(CAST(:subject AS text), stored.subject)
      AND stored.kind = coalesce(CAST(:kind AS text), stored.kind)
      AND stored.granularity = coalesce(CAST(:granularity AS text), stored.granularity)
    ORDER BY newest.ts_event DESC, source, subject, kind, granularity
    LIMIT :limit
    """
)


class RecordPlace(NamedTuple):
    """Where a record stands in the order: newest first, then by feed."""

    ts: datetime
    source: str
    subject: str
    kind: str
    granularity: str

    @classmethod
    def of(cls, row: Record) -> RecordPlace:
        """The place of a row."""
        return cls(row["ts_event"], row["source"], row["subject"], row["kind"], row["granularity"])


def feed_summaries(connection: Connection, limit: int) -> list[Record]:
    """Every feed that has records or a watermark, by source, subject, kind and granularity.

    `counted` is how many records were counted, at most the feed's part of COUNTED, and `counted_from` the oldest of
    them; see `record_count`.
    """
    return fetch(connection, _SUMMARIES, {"counted": COUNTED, "least": LEAST_COUNTED, "limit": limit})


def record_count(counted: int, counted_from: datetime | None, oldest: datetime | None, newest: datetime | None) -> int:
    """How many records a feed has.

    Args:
        counted: how many were counted from the newest backwards.
        counted_from: the oldest of them.
        oldest: of all; None where there are none.
        newest: of all.

    Returns:
        Exactly `counted` where counting reached the oldest record; else the older part is taken to be as dense as the
        counted part.
    """
    if oldest is None or newest is None or counted_from is None or counted_from <= oldest or newest <= counted_from:
        return counted
    # Between so many records there is one space less.
    return counted + round((counted - 1) * ((counted_from - oldest) / (newest - counted_from)))


def newest_records(
    connection: Connection,
    *,
    source: str | None,
    subject: str | None,
    kind: str | None,
    granularity: str | None,
    limit: int,
    after: RecordPlace | None = None,
) -> list[Record]:
    """The newest records of the feeds that match, newest first, those behind `after`; None matches all."""
    values = {"source": source, "subject": subject, "kind": kind, "granularity": granularity, "limit": limit}
    place = {f"after_{name}": getattr(after, name, None) for name in RecordPlace._fields}
    return fetch(connection, _TAIL, values | place)
