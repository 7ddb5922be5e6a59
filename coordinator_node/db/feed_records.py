"""Feed records and watermarks, for operators' own code."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, literal, text
from sqlmodel import Session, col, delete, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from coordinator_node.db.repositories.statements import committing, fresh, newest, upsert
from coordinator_node.db.repositories.values import instant, storable
from coordinator_node.db.tables import FeedIngestionStateRow, FeedRecordRow
from coordinator_node.entities.feed_record import FeedIngestionState, FeedRecord
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.times import as_utc

FEED = ("source", "subject", "kind", "granularity")

INDEXED_FEEDS = """
SELECT feed.*, state.last_event_ts AS watermark_ts, state.updated_at AS watermark_updated_at
FROM (
    SELECT source, subject, kind, granularity,
        count(*) AS record_count, min(ts_event) AS oldest_ts, max(ts_event) AS newest_ts
    FROM feed_records
    GROUP BY source, subject, kind, granularity
) AS feed
LEFT JOIN feed_ingestion_state AS state USING (source, subject, kind, granularity)
ORDER BY source, subject, kind, granularity
"""


class DBFeedRecordRepository:
    """Reads and writes feed records; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def append_records(self, records: Iterable[FeedRecord]) -> int:
        """Store records, all or none. One that is there already (same feed and time) takes the new values and meta.

        Returns:
            How many records were written; several of one feed and time count once, and the last is kept.

        Raises:
            ValueError: a record holds what the database cannot, such as NaN; the message names it.
        """
        rows = [_values(record) for record in records]
        with committing(self._session):
            return upsert(
                self._session, FeedRecordRow, rows, key=(*FEED, "ts_event"), only_when_new=("id", "ts_ingested")
            )

    def fetch_records(
        self,
        *,
        source: str,
        subject: str,
        kind: str,
        granularity: str,
        start_ts: datetime | None = None,
        end_ts: datetime | None = None,
        limit: int | None = None,
    ) -> list[FeedRecord]:
        """Records of one feed from `start_ts` to `end_ts`, both included: the newest `limit`, in ascending time."""
        query = _of_feed(source, subject, kind, granularity)
        if start_ts is not None:
            query = query.where(col(FeedRecordRow.ts_event) >= as_utc(start_ts))
        if end_ts is not None:
            query = query.where(col(FeedRecordRow.ts_event) <= as_utc(end_ts))
        return [_entity(row) for row in newest(self._session, query, col(FeedRecordRow.ts_event), limit=limit)]

    def prune_before(self, cutoff_ts: datetime) -> int:
        """Delete the records of all feeds that are older than `cutoff_ts`; returns how many there were."""
        with committing(self._session):
            old = delete(FeedRecordRow).where(col(FeedRecordRow.ts_event) < as_utc(cutoff_ts))
            return self._session.exec(old).rowcount

    def fetch_latest_record(
        self, *, source: str, subject: str, kind: str, granularity: str, at_or_before: datetime | None = None
    ) -> FeedRecord | None:
        """The newest record of one feed, or the newest at or before a time; None where there is none."""
        found = self.fetch_records(
            source=source, subject=subject, kind=kind, granularity=granularity, end_ts=at_or_before, limit=1
        )
        return found[0] if found else None

    def list_indexed_feeds(self) -> list[dict[str, object]]:
        """Every feed that has records, with its watermark (None where it has none), by name.

        Each is a dict of source, subject, kind, granularity, record_count, oldest_ts, newest_ts, watermark_ts and
        watermark_updated_at.
        """
        return [dict(row) for row in self._session.connection().execute(text(INDEXED_FEEDS)).mappings()]

    def tail_records(
        self,
        *,
        source: str | None = None,
        subject: str | None = None,
        kind: str | None = None,
        granularity: str | None = None,
        limit: int = 20,
    ) -> list[FeedRecord]:
        """The newest records of all feeds, or of those that are named: newest first."""
        query = _of_feed(source, subject, kind, granularity)
        return [_entity(row) for row in newest(self._session, query, col(FeedRecordRow.ts_event), limit=limit)][::-1]

    def get_watermark(self, *, source: str, subject: str, kind: str, granularity: str) -> FeedIngestionState | None:
        """How far one feed has come; None where nobody said."""
        row = FeedIngestionStateRow
        query = select(row).where(
            col(row.source) == source,
            col(row.subject) == subject,
            col(row.kind) == kind,
            col(row.granularity) == granularity,
        )
        found = fresh(self._session, query)
        return _state(found[0]) if found else None

    def set_watermark(self, state: FeedIngestionState) -> None:
        """Say how far a feed has come. One that says less than what is known changes nothing."""
        table = FeedIngestionStateRow
        values = {
            "id": new_id(),
            **{name: getattr(state, name) for name in FEED},
            "last_event_ts": instant(state.last_event_ts),
            "updated_at": as_utc(state.updated_at),
            "meta_jsonb": storable(f"watermark of {_feed_name(state)}", "meta", state.meta),
        }
        known = col(table.last_event_ts)
        # A comparison with NULL is NULL, so that a state without a time never replaces one that has one.
        not_backwards = or_(known.is_(None), known <= literal(values["last_event_ts"], DateTime(timezone=True)))
        with committing(self._session):
            upsert(self._session, table, [values], key=FEED, only_when_new=("id",), condition=not_backwards)


def _of_feed(
    source: str | None, subject: str | None, kind: str | None, granularity: str | None
) -> SelectOfScalar[FeedRecordRow]:
    query = select(FeedRecordRow)
    for name, value in zip(FEED, (source, subject, kind, granularity), strict=True):
        if value is not None:
            query = query.where(getattr(FeedRecordRow, name) == value)
    return query


def _feed_name(feed: FeedRecord | FeedIngestionState) -> str:
    return "/".join(getattr(feed, name) for name in FEED)


def _entity(row: FeedRecordRow) -> FeedRecord:
    return FeedRecord(
        source=row.source,
        subject=row.subject,
        kind=row.kind,
        granularity=row.granularity,
        ts_event=row.ts_event,
        values=row.values_jsonb or {},
        meta=row.meta_jsonb or {},
        ts_ingested=row.ts_ingested,
    )


def _state(row: FeedIngestionStateRow) -> FeedIngestionState:
    return FeedIngestionState(
        source=row.source,
        subject=row.subject,
        kind=row.kind,
        granularity=row.granularity,
        last_event_ts=row.last_event_ts,
        meta=row.meta_jsonb or {},
        updated_at=row.updated_at,
    )


def _values(record: FeedRecord) -> dict[str, Any]:
    ts_event = as_utc(record.ts_event)
    name = f"record of {_feed_name(record)} at {ts_event.isoformat()}"
    return {
        "id": new_id(),
        **{field: getattr(record, field) for field in FEED},
        "ts_event": ts_event,
        "ts_ingested": as_utc(record.ts_ingested),
        "values_jsonb": storable(name, "values", record.values),
        "meta_jsonb": storable(name, "meta", record.meta),
    }
