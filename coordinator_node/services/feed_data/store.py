"""Stores a burst of records and moves the watermarks, in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.ids import new_id, new_ids
from coordinator_node.feeds.micros import epoch_micros

# A burst comes as one JSON document, because Postgres takes that apart faster than arrays of texts, and the values in
# it need no second parsing; times come as microseconds since the Unix epoch, exact up to the year 2255.
# A time that is stored stays as it is: a prediction may have been scored by it.
_STORE = text(
    """
    INSERT INTO feed_records (id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb, meta_jsonb)
    SELECT record->>0, feed->>0, feed->>1, feed->>2, feed->>3,
           'epoch'::timestamptz + (record->1)::bigint * interval '1 microsecond',
           'epoch'::timestamptz + (record->2)::bigint * interval '1 microsecond',
           record->3, record->4
    FROM jsonb_array_elements(CAST(:feeds AS jsonb)) AS feed, jsonb_array_elements(feed->4) AS record
    ON CONFLICT (source, subject, kind, granularity, ts_event) DO NOTHING
    """
)
_MOVE_WATERMARKS = text(
    """
    INSERT INTO feed_ingestion_state AS state
        (id, source, subject, kind, granularity, last_event_ts, updated_at, meta_jsonb)
    SELECT feed->>0, feed->>1, feed->>2, feed->>3, feed->>4, (feed->>5)::timestamptz, :now, '{}'
    FROM jsonb_array_elements(CAST(:feeds AS jsonb)) AS feed
    ON CONFLICT (source, subject, kind, granularity) DO UPDATE SET
        last_event_ts = GREATEST(state.last_event_ts, excluded.last_event_ts),
        updated_at = excluded.updated_at
    """
)
_READ_WATERMARK = text(
    """
    SELECT last_event_ts FROM feed_ingestion_state
    WHERE source = :source AND subject = :subject AND kind = :kind AND granularity = :granularity
    """
)
_PRUNE = text(
    """
    DELETE FROM feed_records WHERE id IN (
        SELECT id FROM feed_records WHERE ts_event < :cutoff ORDER BY ts_event LIMIT :limit
    )
    """
)

type Feed = tuple[str, str, str, str]
_feed_of = attrgetter("source", "subject", "kind", "granularity")


def store_records(session: Session, records: Sequence[FeedRecord], now: datetime) -> int:
    """Insert what is new in one statement, then move each subject's watermark to its newest; returns how many were new.

    A watermark never moves back.

    Raises:
        ValueError: a number among the records is NaN or infinite.
    """
    feeds = _by_feed(records)
    if not feeds:
        return 0
    rows = json.dumps([[*feed, _rows(of_feed)] for feed, of_feed in feeds], allow_nan=False)
    stored: int = session.connection().execute(_STORE, {"feeds": rows}).rowcount
    newest = json.dumps([[new_id(), *feed, of_feed[-1].ts_event.isoformat()] for feed, of_feed in feeds])
    session.connection().execute(_MOVE_WATERMARKS, {"feeds": newest, "now": now})
    return stored


def read_watermark(session: Session, source: str, subject: str, kind: str, granularity: str) -> datetime | None:
    """Up to when a feed's records are stored; None before the first."""
    values = {"source": source, "subject": subject, "kind": kind, "granularity": granularity}
    found: datetime | None = session.connection().execute(_READ_WATERMARK, values).scalar()
    return found


def prune_records(session: Session, cutoff: datetime, limit: int) -> int:
    """Delete at most `limit` of the oldest records before a time; returns how many."""
    deleted: int = session.connection().execute(_PRUNE, {"cutoff": cutoff, "limit": limit}).rowcount
    return deleted


def _by_feed(records: Sequence[FeedRecord]) -> list[tuple[Feed, list[FeedRecord]]]:
    """Each feed's records in time order; feeds in the order of their key.

    In one order everywhere, so that of two writers one waits for the other, and never both for each other.
    """
    feeds: dict[Feed, list[FeedRecord]] = {}
    for record in records:
        feeds.setdefault(_feed_of(record), []).append(record)
    return [(feed, sorted(feeds[feed], key=attrgetter("ts_event"))) for feed in sorted(feeds)]


def _rows(records: list[FeedRecord]) -> list[tuple[object, ...]]:
    ids = new_ids(len(records))
    return [
        (record_id, epoch_micros(r.ts_event), epoch_micros(r.ts_ingested), r.values, r.meta)
        for record_id, r in zip(ids, records, strict=True)
    ]
