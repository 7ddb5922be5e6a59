"""What grows without end and is not needed for ever: old leaderboards and weights, and the raw data of old inputs.

Of leaderboards, and of ensembles' weights, all of the last day are kept, then the last of each hour, and none that is
older than LEADERBOARD_TTL_DAYS; without that setting those of the hours are kept for ever. An input that is older than
INPUT_TTL_DAYS and whose ground truth is known loses what the models were given, not its row nor its ground truth;
without that setting it is kept.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import Fence, transaction
from coordinator_node.db.json_text import encode_json

EVERY = timedelta(hours=1)
KEPT_IN_FULL = timedelta(days=1)

STRETCH = timedelta(days=1)
"""How much time is thinned in one transaction."""

INPUTS_AT_ONCE = 1000

_THIN_LEADERBOARDS = text(
    """
    DELETE FROM leaderboards USING (
        SELECT id, row_number() OVER (PARTITION BY date_trunc('hour', created_at) ORDER BY created_at DESC, id DESC)
                   AS place
        FROM leaderboards WHERE created_at >= :begin AND created_at < :end
    ) AS seen WHERE leaderboards.id = seen.id AND seen.place > 1
    """
)
_FIRST_LEADERBOARD = text("SELECT created_at FROM leaderboards ORDER BY created_at LIMIT 1")
_OLD_LEADERBOARDS = text("DELETE FROM leaderboards WHERE created_at < :before")
_THIN_WEIGHTS = text(
    """
    DELETE FROM ensemble_weights USING (
        SELECT id, row_number() OVER (PARTITION BY model_id, date_trunc('hour', computed_at)
                                      ORDER BY computed_at DESC, id DESC) AS place
        FROM ensemble_weights
        WHERE model_id IN (SELECT id FROM models WHERE starts_with(id, '__ensemble_'))
          AND computed_at >= :begin AND computed_at < :end
    ) AS seen WHERE ensemble_weights.id = seen.id AND seen.place > 1
    """
)
# The newest weights of an ensemble are in force, however old they are.
_OLD_WEIGHTS = text(
    """
    DELETE FROM ensemble_weights AS old
    WHERE model_id IN (SELECT id FROM models WHERE starts_with(id, '__ensemble_'))
      AND computed_at < :before AND EXISTS (
        SELECT 1 FROM ensemble_weights AS newer
        WHERE newer.model_id = old.model_id AND newer.computed_at > old.computed_at
    )
    """
)
_OLD_INPUTS = text(
    """
    SELECT id, received_at FROM inputs
    WHERE received_at < :before AND received_at >= :after AND (received_at, id) > (:after, :after_id)
    ORDER BY received_at, id LIMIT :limit
    """
)
_EMPTY_INPUTS = text(
    "UPDATE inputs SET raw_data_jsonb = '{}' WHERE id = ANY(CAST(:ids AS text[])) AND status = 'RESOLVED'"
)
_READ_MARK = text("SELECT value_jsonb FROM engine_state WHERE key = :key")
_WRITE_MARK = text(
    """
    INSERT INTO engine_state (key, value_jsonb, updated_at) VALUES (:key, CAST(:value AS jsonb), :now)
    ON CONFLICT (key) DO UPDATE SET value_jsonb = excluded.value_jsonb, updated_at = excluded.updated_at
    """
)
_LEADERBOARDS_MARK = "leaderboards_thinned"
_INPUTS_MARK = "inputs_emptied"


class Retention:
    """Thins out what is old, an hour apart. Where it got to is stored, so that nothing is looked at twice."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._leaderboard_days = settings.leaderboard_ttl_days
        self._input_days = settings.input_ttl_days
        self._next: datetime | None = None

    def run_if_due(self, now: datetime, fence: Fence) -> None:
        """Thin out what has become old since the last time, in the first call and then EVERY so often."""
        if self._next is not None and now < self._next:
            return
        self._next = now + EVERY
        while self._thin_a_stretch(now, fence):
            pass
        if self._leaderboard_days is not None:
            with transaction(self._engine, fence) as session:
                values = {"before": now - timedelta(days=self._leaderboard_days)}
                for statement in (_OLD_LEADERBOARDS, _OLD_WEIGHTS):
                    session.connection().execute(statement, values)
        while self._input_days is not None and self._empty_some_inputs(now, self._input_days, fence):
            pass

    def _thin_a_stretch(self, now: datetime, fence: Fence) -> bool:
        """Thin the next stretch of leaderboards and weights; whether there may be another."""
        until = _whole_hour(now - KEPT_IN_FULL)
        with transaction(self._engine, fence) as session:
            begin = self._thinned_until(session)
            if begin is None or begin >= until:
                return False
            end = min(begin + STRETCH, until)
            for statement in (_THIN_LEADERBOARDS, _THIN_WEIGHTS):
                session.connection().execute(statement, {"begin": begin, "end": end})
            _write_mark(session, _LEADERBOARDS_MARK, {"until": end.isoformat()}, now)
        return end < until

    def _thinned_until(self, session: Session) -> datetime | None:
        mark = _read_mark(session, _LEADERBOARDS_MARK)
        if mark is not None:
            return datetime.fromisoformat(mark["until"])
        first: datetime | None = session.connection().execute(_FIRST_LEADERBOARD).scalar()
        return None if first is None else _whole_hour(first)

    def _empty_some_inputs(self, now: datetime, days: float, fence: Fence) -> bool:
        """Empty the next old inputs; whether there may be more."""
        with transaction(self._engine, fence) as session:
            mark = _read_mark(session, _INPUTS_MARK) or {"received_at": datetime.min.replace(tzinfo=UTC).isoformat()}
            values = {
                "before": now - timedelta(days=days),
                "after": datetime.fromisoformat(mark["received_at"]),
                "after_id": mark.get("id", ""),
                "limit": INPUTS_AT_ONCE,
            }
            found = session.connection().execute(_OLD_INPUTS, values).all()
            if not found:
                return False
            session.connection().execute(_EMPTY_INPUTS, {"ids": [row.id for row in found]})
            reached = {"received_at": found[-1].received_at.isoformat(), "id": found[-1].id}
            _write_mark(session, _INPUTS_MARK, reached, now)
        return len(found) == INPUTS_AT_ONCE


def _whole_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _read_mark(session: Session, key: str) -> dict[str, str] | None:
    found: dict[str, str] | None = session.connection().execute(_READ_MARK, {"key": key}).scalar()
    return found


def _write_mark(session: Session, key: str, value: dict[str, str], now: datetime) -> None:
    session.connection().execute(_WRITE_MARK, {"key": key, "value": encode_json(value), "now": now})
