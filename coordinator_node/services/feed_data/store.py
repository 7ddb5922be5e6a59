"""Stores a burst of records and moves the watermark, in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.ids import new_id

# A time that is stored stays as it is: a prediction may have been scored by it.
_INSERT = text(
    """
    INSERT INTO feed_records (id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb, meta_jsonb)
    SELECT new.id, new.source, new.subject, new.kind, new.granularity, new.ts_event, new.ts_ingested,
           new.values_json::jsonb, new.meta_json::jsonb
    FROM unnest(CAST(:ids AS text[]), CAST(:sources AS text[]), CAST(:subjects AS text[]), CAST(:kinds AS text[]),
                CAST(:granularities AS text[]), CAST(:ts_events AS timestamptz[]), CAST(:ts_ingested AS timestamptz[]),
                CAST(:values AS text[]), CAST(:metas AS text[]))
         AS new(id, source, subject, kind, granularity, ts_event, ts_ingested, values_json, meta_json)
    ON CONFLICT (source, subject, kind, granularity, ts_event) DO NOTHING
    """
)
_WATERMARK = text(
    """
    INSERT INTO feed_ingestion_state (id, source, subject, kind, granularity, last_event_ts, updated_at, meta_jsonb)
    VALUES (:id, :source, :subject, :kind, :granularity, :last_event_ts, :now, '{}')
    ON CONFLICT (source, subject, kind, granularity) DO UPDATE SET
        last_event_ts = GREATEST(feed_ingestion_state.last_event_ts, excluded.last_event_ts),
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


def store_records(session: Session, records: Sequence[FeedRecord], now: datetime) -> int:
    """Insert what is new in one statement, then move each subject's watermark to its newest; returns how many were new.

    A watermark never moves back.
    """
    ordered = sorted(records, key=lambda r: (r.source, r.subject, r.kind, r.granularity, r.ts_event))
    if not ordered:
        return 0
    values = {
        "ids": [new_id() for _ in ordered],
        "sources": [r.source for r in ordered],
        "subjects": [r.subject for r in ordered],
        "kinds": [r.kind for r in ordered],
        "granularities": [r.granularity for r in ordered],
        "ts_events": [r.ts_event for r in ordered],
        "ts_ingested": [r.ts_ingested for r in ordered],
        "values": [json.dumps(r.values, allow_nan=False) for r in ordered],
        "metas": [json.dumps(r.meta, allow_nan=False) for r in ordered],
    }
    stored: int = session.connection().execute(_INSERT, values).rowcount
    newest = {(r.source, r.subject, r.kind, r.granularity): r.ts_event for r in ordered}
    for (source, subject, kind, granularity), last_event_ts in newest.items():
        session.connection().execute(
            _WATERMARK,
            {
                "id": new_id(),
                "source": source,
                "subject": subject,
                "kind": kind,
                "granularity": granularity,
                "last_event_ts": last_event_ts,
                "now": now,
            },
        )
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
