"""Which checkpoint period a moment belongs to, and where the periods begin.

Periods are half-open, [start, start + CHECKPOINT_INTERVAL_SECONDS), and each starts where the last checkpoint ended.
The first starts at the anchor: where the last checkpoint of an adopted database ended, else CHECKPOINT_START, else
where the first snapshot of this version begins. The checkpoint stage stores the anchor, so that it stays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.config.settings import Settings

ANCHOR_KEY = "checkpoint_anchor"

_LAST_OF_OURS = text("SELECT max(period_end) FROM checkpoints WHERE period IS NOT NULL")
_LAST_OF_ANY = text("SELECT max(period_end) FROM checkpoints")
_ANCHOR = text("SELECT value_jsonb FROM engine_state WHERE key = :key")
_FIRST_SNAPSHOT = text("SELECT min(period_start) FROM snapshots WHERE cycle_id IS NOT NULL")
_STORE_ANCHOR = text(
    """
    INSERT INTO engine_state (key, value_jsonb, updated_at) VALUES (:key, CAST(:value AS jsonb), :now)
    ON CONFLICT (key) DO NOTHING
    """
)
_LOCK_BOUNDARIES = text("SELECT pg_advisory_xact_lock(:key)")
_SHARE_BOUNDARIES = text("SELECT pg_advisory_xact_lock_shared(:key)")
# Beside the numbers of coordinator_node.db.advisory.
_BOUNDARIES = 7_204_101


@dataclass(frozen=True)
class OpenPeriod:
    """The first period without a checkpoint. `follows` is whether it starts where a checkpoint ended."""

    start: datetime
    length: timedelta
    follows: bool

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.start + self.length

    def period_of(self, moment: datetime) -> datetime | None:
        """The start of the period that a moment belongs to, if the interval stays; None for one before `start`."""
        if moment < self.start:
            return None
        return self.start + (moment - self.start) // self.length * self.length


def open_period(session: Session, settings: Settings) -> OpenPeriod | None:
    """The first period without a checkpoint; None while there is nothing to start it."""
    length = timedelta(seconds=settings.checkpoint_interval_seconds)
    ended = session.connection().execute(_LAST_OF_OURS).scalar()
    if ended is not None:
        return OpenPeriod(ended, length, follows=True)
    stored = session.connection().execute(_ANCHOR, {"key": ANCHOR_KEY}).scalar()
    if stored is not None:
        return OpenPeriod(datetime.fromisoformat(stored["start"]), length, follows=bool(stored["follows"]))
    adopted = session.connection().execute(_LAST_OF_ANY).scalar()
    if adopted is not None:
        return OpenPeriod(adopted, length, follows=True)
    first = settings.checkpoint_start or session.connection().execute(_FIRST_SNAPSHOT).scalar()
    return None if first is None else OpenPeriod(first, length, follows=False)


def store_anchor(session: Session, period: OpenPeriod, now: datetime) -> None:
    """Keep where the first period starts; where that is kept already, nothing changes."""
    value = json.dumps({"start": period.start.isoformat(), "follows": period.follows})
    session.connection().execute(_STORE_ANCHOR, {"key": ANCHOR_KEY, "value": value, "now": now})


def hold_boundaries(session: Session) -> None:
    """Let no period be closed before this transaction ends, so that what it writes is on the side it takes it for."""
    session.connection().execute(_SHARE_BOUNDARIES, {"key": _BOUNDARIES})


def close_boundary(session: Session) -> None:
    """Wait until nobody writes snapshots, and let nobody write one before this transaction ends."""
    session.connection().execute(_LOCK_BOUNDARIES, {"key": _BOUNDARIES})
