"""The rows of slots: opening one, claiming its calls, missing one, and ending the calls of a dead caller.

Whoever comes first opens a slot for all shards: its row, its input, and for each shard a call that names the models to
ask, claimed by nobody yet (epoch 0). The holder of a shard then claims its call before it asks anybody. A call is
closed once every model in it has its prediction row. An open call of a shard that its holder does not work on was left
by a caller that died, or was claimed by nobody in time: its models without a row get one that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from coordinator_node.db.tables import InputRow, PredictionSlotRow
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import InputStatus, SlotStatus
from coordinator_node.services.model_shards import write_calls
from coordinator_node.services.predict.grid import Schedule

INTERRUPTED = "interrupted"

# At most so many missed slots are written in one transaction; the next pass goes on from there.
MISSED_AT_ONCE = 5000

# A call by its slot and its shard.
CallKey = tuple[str, str]

_LAST_SLOT = text("SELECT slot_at FROM prediction_slots WHERE prediction_config_id = :id ORDER BY slot_at DESC LIMIT 1")
_CLAIM = text(
    """
    UPDATE slot_calls AS call SET epoch = held.epoch, called_at = :now
    FROM unnest(CAST(:shards AS text[]), CAST(:epochs AS bigint[])) AS held(name, epoch), prediction_slots AS slot
    WHERE call.closed_at IS NULL AND call.lease_name = held.name AND call.epoch = 0
      AND slot.id = call.slot_id AND slot.deadline_at > :now
    RETURNING call.slot_id, call.lease_name, call.epoch, call.model_ids_jsonb,
              slot.prediction_config_id, slot.slot_at, slot.deadline_at, slot.input_id
    """
)
# The calls of these shards that nobody works on any more.
_LEFT = """
    call.closed_at IS NULL AND call.lease_name = ANY(:shards) AND slot.round_id IS NULL
    AND (call.epoch <> 0 OR slot.deadline_at <= :now)
    AND NOT EXISTS (SELECT 1
                    FROM unnest(CAST(:slots AS text[]), CAST(:slot_shards AS text[])) AS working(slot_id, shard)
                    WHERE working.slot_id = call.slot_id AND working.shard = call.lease_name)
"""
_END_LEFT = text(
    f"""
    WITH left_over AS MATERIALIZED (
        SELECT call.slot_id, call.lease_name, call.model_ids_jsonb,
               slot.prediction_config_id, slot.slot_at, slot.input_id
        FROM slot_calls AS call JOIN prediction_slots AS slot ON slot.id = call.slot_id WHERE {_LEFT}
    ), closed AS (
        UPDATE slot_calls AS call SET closed_at = :now FROM left_over
        WHERE call.slot_id = left_over.slot_id AND call.lease_name = left_over.lease_name
        RETURNING call.slot_id
    ), ended AS (
        INSERT INTO predictions (id, input_id, model_id, prediction_config_id, scope_key, scope_jsonb, status,
                                 exec_time_ms, inference_output_jsonb, meta_jsonb, performed_at, resolvable_at, slot_id,
                                 failed_reason)
        SELECT replace(gen_random_uuid()::text, '-', ''), left_over.input_id, asked.model_id,
               left_over.prediction_config_id, schedule.scope_key, input.scope_jsonb, 'FAILED', 0, '{{}}', '{{}}',
               left_over.slot_at, left_over.slot_at
                   + make_interval(secs => (schedule.schedule_jsonb->>'resolve_horizon_seconds')::float8),
               left_over.slot_id, :reason
        FROM left_over
        JOIN inputs AS input ON input.id = left_over.input_id
        JOIN scheduled_prediction_configs AS schedule ON schedule.id = left_over.prediction_config_id
        CROSS JOIN LATERAL jsonb_array_elements_text(left_over.model_ids_jsonb) AS asked(model_id)
        ON CONFLICT (slot_id, model_id) DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ended) AS predictions, ARRAY(SELECT DISTINCT slot_id FROM closed) AS slots
    """  # noqa: S608 - put together from this module's own text
)
_CLOSE = text(
    """
    UPDATE slot_calls AS call SET closed_at = :now
    FROM unnest(CAST(:slots AS text[]), CAST(:slot_shards AS text[])) AS done(slot_id, shard)
    WHERE call.slot_id = done.slot_id AND call.lease_name = done.shard
    """
)
_MISS = text(
    """
    INSERT INTO prediction_slots (id, prediction_config_id, slot_at, status, reason, created_at)
    SELECT replace(gen_random_uuid()::text, '-', ''), :schedule_id,
           to_timestamp(:offset + index * CAST(:interval AS float8)), 'MISSED', :reason, :now
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS index
    ON CONFLICT (prediction_config_id, slot_at) DO NOTHING
    """
)


@dataclass(frozen=True)
class ShardCall:
    """One shard's part of a slot or a round: which models are asked, under which epoch."""

    slot_id: str
    shard: str
    epoch: int
    slot_at: datetime
    model_ids: tuple[str, ...]

    @property
    def key(self) -> CallKey:
        """What the call's row is found by."""
        return self.slot_id, self.shard


@dataclass(frozen=True)
class SlotCall(ShardCall):
    """One shard's part of a slot that was called: what is asked, and until when."""

    schedule: Schedule
    deadline_at: datetime
    input_id: str

    def prediction(self, model_id: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The row of one model's prediction in this slot, with what came of asking it."""
        return {
            "id": new_id(),
            "input_id": self.input_id,
            "model_id": model_id,
            "prediction_config_id": self.schedule.id,
            "scope_key": self.schedule.scope_key,
            "scope_jsonb": self.schedule.scope,
            "meta_jsonb": {},
            "performed_at": self.slot_at,
            "resolvable_at": self.schedule.resolvable_at(self.slot_at),
            "slot_id": self.slot_id,
            **columns,
        }


@dataclass(frozen=True)
class LeftCalls:
    """What was ended of calls that nobody worked on: how many predictions, and the slots whose calls were closed."""

    predictions: int
    slots: list[str]


def last_slot_at(session: Session, schedule_id: str) -> datetime | None:
    """The newest slot of a schedule that has a row; None for a schedule that never had one."""
    found: datetime | None = session.connection().execute(_LAST_SLOT, {"id": schedule_id}).scalar()
    return found


def open_slot(
    session: Session,
    schedule: Schedule,
    slot_at: datetime,
    *,
    raw_data: dict[str, Any],
    models_of_shards: Mapping[str, list[str]],
    now: datetime,
) -> str | None:
    """Write the slot's row as called, its input, and an unclaimed call for each shard that has models.

    Returns:
        The input's id; None if another worker has written this slot's row.
    """
    input_id = new_id()
    # The slot refers to its input, so this comes first, and is taken back where somebody else was quicker.
    session.connection().execute(
        insert(InputRow).values(
            id=input_id,
            raw_data_jsonb=raw_data,
            received_at=now,
            status=InputStatus.RECEIVED.value,
            scope_jsonb=schedule.scope,
        )
    )
    statement = insert(PredictionSlotRow).values(
        id=new_id(),
        prediction_config_id=schedule.id,
        slot_at=slot_at,
        status=SlotStatus.CALLED.value,
        input_id=input_id,
        deadline_at=schedule.deadline_at(slot_at),
        created_at=now,
    )
    statement = statement.on_conflict_do_nothing(index_elements=["prediction_config_id", "slot_at"])
    slot_id = session.connection().execute(statement.returning(PredictionSlotRow.id)).scalar()  # type: ignore[call-overload]  # a column
    if slot_id is None:
        session.connection().execute(text("DELETE FROM inputs WHERE id = :id"), {"id": input_id})
        return None
    write_calls(session, slot_id, models_of_shards, now)
    return input_id


def slot_exists(session: Session, schedule: Schedule, slot_at: datetime) -> bool:
    """Whether any worker has written a slot's row."""
    query = text("SELECT 1 FROM prediction_slots WHERE prediction_config_id = :id AND slot_at = :slot_at")
    return bool(session.connection().execute(query, {"id": schedule.id, "slot_at": slot_at}).scalar())


def claim_calls(
    session: Session, shards: Mapping[str, int], schedules: Mapping[str, Schedule], now: datetime
) -> list[SlotCall]:
    """Claim the calls of these shards (name to epoch) that nobody has claimed and whose deadline has not passed.

    They come in order of time; of one moment, in that of the schedules. So each model is asked, as in a backtest.
    """
    if not shards:
        return []
    values = {"shards": list(shards), "epochs": list(shards.values()), "now": now}
    places = {schedule_id: place for place, schedule_id in enumerate(schedules)}
    claimed = [
        SlotCall(
            slot_id=row.slot_id,
            shard=row.lease_name,
            epoch=row.epoch,
            schedule=schedules[row.prediction_config_id],
            slot_at=row.slot_at,
            deadline_at=row.deadline_at,
            input_id=row.input_id,
            model_ids=tuple(row.model_ids_jsonb or ()),
        )
        for row in session.connection().execute(_CLAIM, values).all()
        if row.prediction_config_id in schedules
    ]
    return sorted(claimed, key=lambda call: (call.slot_at, places[call.schedule.id]))


def end_left_calls(session: Session, shards: Iterable[str], working: Iterable[CallKey], now: datetime) -> LeftCalls:
    """FAILED "interrupted" for every model that was to be asked, has no row, and that nobody asks any more.

    `working` are the calls that the holder of the shards is asking.
    """
    values = {"shards": list(shards), "now": now, "reason": INTERRUPTED, **call_keys(working)}
    ended = session.connection().execute(_END_LEFT, values).one()
    return LeftCalls(ended.predictions, ended.slots)


def close_calls(session: Session, done: Iterable[CallKey], now: datetime) -> None:
    """Say that every model asked in these calls has its row."""
    session.connection().execute(_CLOSE, {"now": now, **call_keys(done)})


def miss_slots(session: Session, schedule: Schedule, indexes: range, reason: str, now: datetime) -> int:
    """Write the slots' rows as missed: nobody is asked. Returns how many of them had no row before."""
    values = {
        "schedule_id": schedule.id,
        "offset": schedule.offset_seconds,
        "interval": schedule.interval_seconds,
        "reason": reason,
        "now": now,
        "first": indexes.start,
        "last": indexes.stop - 1,
    }
    return session.connection().execute(_MISS, values).rowcount


def call_keys(calls: Iterable[CallKey]) -> dict[str, list[str]]:
    """Calls as the parameters `slots` and `slot_shards` of a statement."""
    keys = list(calls)
    return {"slots": [slot_id for slot_id, _ in keys], "slot_shards": [shard for _, shard in keys]}
