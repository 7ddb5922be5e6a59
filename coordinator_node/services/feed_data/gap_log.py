"""What is known of a feed's missing candles, kept in its watermark's meta."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import text
from sqlmodel import Session

# After each of these the venue is asked again for what it did not have: it may have mended its history.
RETRY_SECONDS = (60.0, 600.0, 3600.0)
MOST_REMEMBERED = 100

_READ = text(
    """
    SELECT last_event_ts, meta_jsonb FROM feed_ingestion_state
    WHERE source = :source AND subject = :subject AND kind = :kind AND granularity = :granularity
    """
)
_WRITE = text(
    """
    UPDATE feed_ingestion_state SET meta_jsonb = COALESCE(meta_jsonb, '{}') || CAST(:meta AS jsonb)
    WHERE source = :source AND subject = :subject AND kind = :kind AND granularity = :granularity
    """
)
_FIND = text(
    """
    SELECT before, ts_event FROM (
        SELECT ts_event, lag(ts_event) OVER (ORDER BY ts_event) AS before FROM feed_records
        WHERE source = :source AND subject = :subject AND kind = :kind AND granularity = :granularity
          AND ts_event BETWEEN :start AND :end
    ) AS followed
    WHERE ts_event - before > :allowed ORDER BY ts_event DESC LIMIT :most
    """
)


@dataclass(frozen=True)
class FeedName:
    """One subject's records of one kind and granularity."""

    source: str
    subject: str
    kind: str
    granularity: str


@dataclass(frozen=True)
class Gap:
    """Candles missing between two stored ones, whose times these are.

    `asked` is how often the venue did not have them; `ask_at` is when it is asked again, None for never.
    """

    after: datetime
    before: datetime
    asked: int
    ask_at: datetime | None

    def not_had(self, now: datetime) -> Self:
        """The gap after the venue was asked once more and did not fill it."""
        pause = RETRY_SECONDS[self.asked] if self.asked < len(RETRY_SECONDS) else None
        return replace(self, asked=self.asked + 1, ask_at=None if pause is None else now + timedelta(seconds=pause))


@dataclass(frozen=True)
class GapLog:
    """One feed's gaps in time order, and up to when they were looked for (None before the first look)."""

    checked_until: datetime | None = None
    gaps: tuple[Gap, ...] = ()

    def due(self, now: datetime) -> Gap | None:
        """The oldest gap that is to be asked for now; None where none is."""
        return next((gap for gap in self.gaps if gap.ask_at is not None and gap.ask_at <= now), None)

    def with_found(self, found: Iterable[tuple[datetime, datetime]], checked_until: datetime, now: datetime) -> Self:
        """After a look: what was found and is not known yet is to be asked for at once."""
        known = {(gap.after, gap.before) for gap in self.gaps}
        new = [Gap(after, before, 0, now) for after, before in found if (after, before) not in known]
        return replace(self, checked_until=checked_until, gaps=_bounded([*self.gaps, *new]))

    def with_answer(self, asked: Gap, left: Iterable[tuple[datetime, datetime]], now: datetime) -> Self:
        """After the venue was asked for a gap: what is left of it."""
        others = [gap for gap in self.gaps if gap != asked]
        remaining = [replace(asked, after=after, before=before).not_had(now) for after, before in left]
        return replace(self, gaps=_bounded([*others, *remaining]))


def read_gap_log(session: Session, feed: FeedName) -> tuple[datetime | None, GapLog]:
    """A feed's watermark (None where it has none), and its gaps."""
    row = session.connection().execute(_READ, asdict(feed)).one_or_none()
    if row is None:
        return None, GapLog()
    meta = row.meta_jsonb if isinstance(row.meta_jsonb, dict) else {}
    return row.last_event_ts, GapLog(_time(meta.get("checked_until")), tuple(map(_gap, meta.get("gaps", ()))))


def write_gap_log(session: Session, feed: FeedName, log: GapLog) -> None:
    """Keep it in the row of the feed's watermark."""
    meta = {"checked_until": _text(log.checked_until), "gaps": [_document(gap) for gap in log.gaps]}
    session.connection().execute(_WRITE, {**asdict(feed), "meta": json.dumps(meta)})


def find_gaps(
    session: Session, feed: FeedName, start: datetime, end: datetime, spacing: timedelta
) -> list[tuple[datetime, datetime]]:
    """Stored times from `start` to `end`, one after the other, with at least one expected between them; newest first.

    Times may be off the grid by half a spacing, because a replayed file's are not whole seconds.
    """
    values = {"start": start, "end": end, "allowed": 1.5 * spacing, "most": MOST_REMEMBERED}
    rows = session.connection().execute(_FIND, {**asdict(feed), **values})
    return [(row.before, row.ts_event) for row in rows]


def _bounded(gaps: list[Gap]) -> tuple[Gap, ...]:
    return tuple(sorted(gaps, key=lambda gap: gap.after)[-MOST_REMEMBERED:])


def _document(gap: Gap) -> dict[str, Any]:
    return {"after": _text(gap.after), "before": _text(gap.before), "asked": gap.asked, "ask_at": _text(gap.ask_at)}


def _gap(document: dict[str, Any]) -> Gap:
    after, before = (datetime.fromisoformat(document[name]) for name in ("after", "before"))
    return Gap(after, before, document["asked"], _time(document["ask_at"]))


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(text_or_none: str | None) -> datetime | None:
    return datetime.fromisoformat(text_or_none) if text_or_none else None
