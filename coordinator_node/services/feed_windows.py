"""Reading stretches of the feed: how far it has come, and the records that an outcome is judged by."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Row, text
from sqlmodel import Session

from coordinator_node.db.json_text import parse_object
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.feed_scope import FeedScope

# Records that are read at once at most (but for one longer stretch), if all are as full as the feed's spacing says.
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
           CAST(record.values_jsonb AS text) AS values_text, CAST(record.meta_jsonb AS text) AS meta_text
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


class Window(NamedTuple):
    """The stretch that an outcome is judged by: from what was known when it was predicted to what was known at its end.

    It holds the last record known at or before `start`, then all that became known up to and including `end`.
    """

    subject: str
    start: datetime
    end: datetime


def cut(records: list[FeedRecord], times: list[datetime], window: Window, lag: timedelta) -> list[FeedRecord]:
    """The records of a window; live and in backtests.

    Args:
        records: of the window's subject, in time order, from the last one known at its start on, or earlier.
        times: their ts_event.
        window: the stretch.
        lag: how long after its ts_event a record is known.
    """
    entry = bisect_right(times, window.start - lag)
    return records[max(entry - 1, 0) : bisect_right(times, window.end - lag)]


def known_until(session: Session, feed: FeedScope, subjects: Sequence[str]) -> dict[str, datetime]:
    """Up to when everything about a subject is known and stored, by subject; one without any record is left out."""
    values = {**_scope_values(feed), "subjects": sorted(set(subjects))}
    rows = session.connection().execute(_WATERMARKS, values).all()
    return {row.subject: row.last_event_ts + feed.lag for row in rows}


def read_windows(
    session: Session, feed: FeedScope, windows: Sequence[Window]
) -> Iterator[tuple[int, list[FeedRecord]]]:
    """Each window's place in `windows` and its records in time order ([] where the feed has none), in any order.

    A stretch that several windows have in common is read once, and they share its records.
    """
    for part in _in_parts(feed, _stretches(windows)):
        found: list[list[FeedRecord]] = [[] for _ in part]
        values = {
            **_scope_values(feed),
            "subjects": [stretch.subject for stretch in part],
            "froms": [stretch.start - feed.lag for stretch in part],
            "untils": [stretch.end - feed.lag for stretch in part],
        }
        for row in session.connection().execute(_WINDOWS, values):
            found[row.position].append(_record(feed, row))
        for stretch, records in zip(part, found, strict=True):
            times = [record.ts_event for record in records]
            for place in stretch.places:
                yield place, cut(records, times, windows[place], feed.lag)


@dataclass
class _Stretch:
    """Windows of one subject that overlap or touch, by their places among all."""

    subject: str
    start: datetime
    end: datetime
    places: list[int]


def _stretches(windows: Sequence[Window]) -> list[_Stretch]:
    found: list[_Stretch] = []
    for place in sorted(range(len(windows)), key=lambda n: (windows[n].subject, windows[n].start)):
        window = windows[place]
        last = found[-1] if found else None
        if last is not None and last.subject == window.subject and window.start <= last.end:
            last.end = max(last.end, window.end)
            last.places.append(place)
        else:
            found.append(_Stretch(window.subject, window.start, window.end, [place]))
    return found


def _in_parts(feed: FeedScope, stretches: Sequence[_Stretch]) -> Iterator[list[_Stretch]]:
    part: list[_Stretch] = []
    records = 0.0
    for stretch in stretches:
        expected = (stretch.end - stretch.start).total_seconds() / feed.spacing + 1
        if part and records + expected > RECORDS_AT_ONCE:
            yield part
            part, records = [], 0.0
        part.append(stretch)
        records += expected
    if part:
        yield part


def _record(feed: FeedScope, row: Row[tuple[object, ...]]) -> FeedRecord:
    return FeedRecord(
        source=feed.source,
        subject=row.subject,
        kind=feed.kind,
        granularity=feed.granularity,
        ts_event=row.ts_event,
        values=parse_object(row.values_text),
        meta=parse_object(row.meta_text),
        ts_ingested=row.ts_ingested,
    )


def _scope_values(feed: FeedScope) -> dict[str, str]:
    return {"source": feed.source, "kind": feed.kind, "granularity": feed.granularity}
