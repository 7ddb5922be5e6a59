"""Reading stretches of the feed: how far it has come, and the records that an outcome is judged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.feed_scope import FeedScope

# Records that are read at once at most, if every window is as full as the feed's spacing says.
RECORDS_AT_ONCE = 50_000

_WATERMARKS = text(
    """
    SELECT subject, last_event_ts FROM feed_ingestion_state
    WHERE source = :source AND kind = :kind AND granularity = :granularity
      AND subject = ANY(CAST(:subjects AS text[])) AND last_event_ts IS NOT NULL
    """
)
_WINDOWS = text(
    """
    SELECT wanted.position - 1 AS position, wanted.subject, record.ts_event, record.ts_ingested,
           record.values_jsonb, record.meta_jsonb
    FROM unnest(CAST(:subjects AS text[]), CAST(:froms AS timestamptz[]), CAST(:untils AS timestamptz[]))
         WITH ORDINALITY AS wanted(subject, entry_at, until_at, position)
    CROSS JOIN LATERAL (
        (SELECT ts_event, ts_ingested, values_jsonb, meta_jsonb FROM feed_records
         WHERE source = :source AND subject = wanted.subject AND kind = :kind AND granularity = :granularity
           AND ts_event <= wanted.entry_at
         ORDER BY ts_event DESC LIMIT 1)
        UNION ALL
        (SELECT ts_event, ts_ingested, values_jsonb, meta_jsonb FROM feed_records
         WHERE source = :source AND subject = wanted.subject AND kind = :kind AND granularity = :granularity
           AND ts_event > wanted.entry_at AND ts_event <= wanted.until_at)
    ) AS record
    ORDER BY wanted.position, record.ts_event
    """
)


@dataclass(frozen=True)
class Window:
    """The stretch that an outcome is judged by: from what was known when it was predicted to what was known at its end.

    It holds the last record known at or before `start`, then all that became known up to and including `end`.
    """

    subject: str
    start: datetime
    end: datetime


def known_until(session: Session, feed: FeedScope, subjects: Sequence[str]) -> dict[str, datetime]:
    """Up to when everything about a subject is known and stored, by subject; one without any record is left out."""
    values = {**_scope_values(feed), "subjects": sorted(set(subjects))}
    rows = session.connection().execute(_WATERMARKS, values).all()
    return {row.subject: row.last_event_ts + feed.lag for row in rows}


def read_windows(
    session: Session, feed: FeedScope, windows: Sequence[Window]
) -> Iterator[tuple[Window, list[FeedRecord]]]:
    """Each window, in the order given, with its records in time order; [] where the feed has none."""
    for part in _in_parts(feed, windows):
        found: list[list[FeedRecord]] = [[] for _ in part]
        values = {
            **_scope_values(feed),
            "subjects": [window.subject for window in part],
            "froms": [window.start - feed.lag for window in part],
            "untils": [window.end - feed.lag for window in part],
        }
        for row in session.connection().execute(_WINDOWS, values):
            record = FeedRecord(
                source=feed.source,
                subject=row.subject,
                kind=feed.kind,
                granularity=feed.granularity,
                ts_event=row.ts_event,
                values=row.values_jsonb or {},
                meta=row.meta_jsonb or {},
                ts_ingested=row.ts_ingested,
            )
            found[row.position].append(record)
        yield from zip(part, found, strict=True)


def _in_parts(feed: FeedScope, windows: Sequence[Window]) -> Iterator[list[Window]]:
    part: list[Window] = []
    records = 0.0
    for window in windows:
        expected = (window.end - window.start).total_seconds() / feed.spacing + 1
        if part and records + expected > RECORDS_AT_ONCE:
            yield part
            part, records = [], 0.0
        part.append(window)
        records += expected
    if part:
        yield part


def _scope_values(feed: FeedScope) -> dict[str, str]:
    return {"source": feed.source, "kind": feed.kind, "granularity": feed.granularity}
