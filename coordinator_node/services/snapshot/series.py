"""Keeps the sums by time bucket that the report API's long charts are made of (`db.series`).

They are made once a bucket is over, in order of time, and made anew in the transaction that counts a score, a miss or a
snapshot of an older bucket. What was there before this began is filled in backwards, some of it in each pass; a rescore
lets it begin anew after the last moment that it changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, text
from sqlmodel import Session

from coordinator_node.db.engine import Fence, transaction
from coordinator_node.db.series.buckets import (
    make_prediction_buckets,
    make_snapshot_buckets,
    prediction_spans,
    snapshot_spans,
)
from coordinator_node.db.series.mark import kept_span, set_kept_span
from coordinator_node.db.series.spans import LEVELS, Span, floor
from coordinator_node.services.checkpoint_periods import hold_boundaries

SETTLED_AFTER = timedelta(minutes=5)
"""How long after its end a bucket is made: most of what is in it is scored and counted by then."""

MOST_ROWS = 1500
"""So many predictions, and so many snapshots, are summed up in a pass, or one bucket's: no cycle is to be longer."""

# The row after so many others, on the way back from what is kept and ahead of it; NULL where there are fewer.
_BACK = text(
    """
    SELECT greatest(
        (SELECT performed_at FROM predictions WHERE performed_at < :bound ORDER BY performed_at DESC
         OFFSET :most LIMIT 1),
        (SELECT period_end FROM snapshots WHERE period_end <= :bound ORDER BY period_end DESC OFFSET :most LIMIT 1)
    )
    """
)
_AHEAD = text(
    """
    SELECT least(
        (SELECT performed_at FROM predictions WHERE performed_at >= :bound ORDER BY performed_at OFFSET :most LIMIT 1),
        (SELECT period_end FROM snapshots WHERE period_end > :bound ORDER BY period_end OFFSET :most LIMIT 1)
    )
    """
)
_FIRST = text("SELECT least((SELECT min(performed_at) FROM predictions), (SELECT min(period_end) FROM snapshots))")
_PERIOD_ENDS = text("SELECT DISTINCT period_end FROM snapshots WHERE id = ANY(CAST(:ids AS text[]))")


class SeriesBuckets:
    """The leader's part in keeping them; `value_field` is the field of the scores that is summed up."""

    def __init__(self, engine: Engine, value_field: str) -> None:
        self._engine = engine
        self._value_field = value_field

    def counted(self, session: Session, performed: Iterable[datetime], snapshot_ids: Sequence[str]) -> None:
        """Make anew the kept buckets of predictions made at these times, and of these snapshots.

        It belongs into the transaction that counts them.
        """
        connection = session.connection()
        kept = kept_span(connection, self._value_field)
        if kept is None:
            return
        touched = prediction_spans(performed, kept)
        if touched:
            make_prediction_buckets(connection, touched, self._value_field)
        ends = connection.execute(_PERIOD_ENDS, {"ids": list(snapshot_ids)}).scalars()
        touched = snapshot_spans(ends, kept)
        if touched:
            make_snapshot_buckets(connection, touched, self._value_field)

    def advance(self, now: datetime, fence: Fence) -> None:
        """Make the buckets that are over since the last time; where there are none, some of the past."""
        with transaction(self._engine, fence) as session:
            # A rescore that is published meanwhile would not know of what is kept here.
            hold_boundaries(session)
            connection = session.connection()
            settled = floor(now - SETTLED_AFTER, LEVELS[0])
            kept = kept_span(connection, self._value_field) or Span(settled, settled)
            added = self._added(connection, kept, settled)
            if added is None:
                return
            make_prediction_buckets(connection, [added], self._value_field)
            make_snapshot_buckets(connection, [added], self._value_field)
            grown = Span(min(kept.begin, added.begin), max(kept.end, added.end))
            set_kept_span(connection, grown, self._value_field, now)

    def _added(self, connection: Connection, kept: Span, settled: datetime) -> Span | None:
        """The next span to keep; None where all is kept."""
        bucket = timedelta(seconds=LEVELS[0])
        if kept.end < settled:
            found = connection.execute(_AHEAD, {"bound": kept.end, "most": MOST_ROWS}).scalar()
            ahead = settled if found is None else floor(found, LEVELS[0])
            return Span(kept.end, min(settled, max(ahead, kept.end + bucket)))
        first: datetime | None = connection.execute(_FIRST).scalar()
        if first is None or first >= kept.begin:
            return None
        found = connection.execute(_BACK, {"bound": kept.begin, "most": MOST_ROWS}).scalar()
        back = floor(first, LEVELS[0]) - bucket if found is None else floor(found, LEVELS[0]) + bucket
        return Span(min(back, kept.begin - bucket), kept.begin)
