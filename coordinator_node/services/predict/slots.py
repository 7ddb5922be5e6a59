"""The rows of slots: opening one before the models are asked, missing one, and ending those of a dead caller."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, text
from sqlmodel import Session

from coordinator_node.db.tables import InputRow, PredictionRow, PredictionSlotRow, SlotCallRow
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import InputStatus, PredictionStatus, SlotStatus
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.predict.grid import Schedule

INTERRUPTED = "interrupted"

# At most so many missed slots are written in one transaction; the next pass goes on from there.
MISSED_AT_ONCE = 5000

_LAST_SLOT = text("SELECT slot_at FROM prediction_slots WHERE prediction_config_id = :id ORDER BY slot_at DESC LIMIT 1")
_INTERRUPT = text(
    """
    INSERT INTO predictions (id, input_id, model_id, prediction_config_id, scope_key, scope_jsonb, status, exec_time_ms,
                             inference_output_jsonb, meta_jsonb, performed_at, resolvable_at, slot_id, failed_reason)
    SELECT replace(gen_random_uuid()::text, '-', ''), slot.input_id, asked.model_id, slot.prediction_config_id,
           schedule.scope_key, input.scope_jsonb, 'FAILED', 0, '{}', '{}', slot.slot_at,
           slot.slot_at + make_interval(secs => (schedule.schedule_jsonb->>'resolve_horizon_seconds')::float8),
           slot.id, :reason
    FROM slot_calls call
    JOIN prediction_slots slot ON slot.id = call.slot_id
    JOIN inputs input ON input.id = slot.input_id
    JOIN scheduled_prediction_configs schedule ON schedule.id = slot.prediction_config_id
    CROSS JOIN LATERAL jsonb_array_elements_text(call.model_ids_jsonb) AS asked(model_id)
    WHERE call.closed_at IS NULL AND call.lease_name = :lease AND NOT call.slot_id = ANY(:working)
    ON CONFLICT (slot_id, model_id) DO NOTHING
    """
)
_CLOSE_INTERRUPTED = text(
    "UPDATE slot_calls SET closed_at = :now"
    " WHERE closed_at IS NULL AND lease_name = :lease AND NOT slot_id = ANY(:working)"
)
_CLOSE = text("UPDATE slot_calls SET closed_at = :now WHERE slot_id = :slot_id AND lease_name = :lease")


@dataclass(frozen=True)
class OpenSlot:
    """A slot whose row says called: what is asked of whom, until when."""

    id: str
    schedule: Schedule
    slot_at: datetime
    deadline_at: datetime
    input_id: str
    model_ids: tuple[str, ...]

    def prediction(self, model_id: str, status: PredictionStatus, **columns: Any) -> dict[str, Any]:
        """The row of one model's prediction in this slot."""
        return {
            "id": new_id(),
            "input_id": self.input_id,
            "model_id": model_id,
            "prediction_config_id": self.schedule.id,
            "scope_key": self.schedule.scope_key,
            "scope_jsonb": self.schedule.scope,
            "status": status.value,
            "exec_time_ms": 0.0,
            "inference_output_jsonb": {},
            "meta_jsonb": {},
            "performed_at": self.slot_at,
            "resolvable_at": self.schedule.resolvable_at(self.slot_at),
            "slot_id": self.id,
            "failed_reason": None,
            "answered_at": None,
            **columns,
        }


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
    present: Iterable[str],
    absent: Iterable[str],
    fence: LeaseFence,
    now: datetime,
) -> OpenSlot:
    """Write the slot's row as called, its input, the models that will be asked, and ABSENT for those that are away."""
    slot = OpenSlot(
        id=new_id(),
        schedule=schedule,
        slot_at=slot_at,
        deadline_at=schedule.deadline_at(slot_at),
        input_id=new_id(),
        model_ids=tuple(sorted(present)),
    )
    session.add(
        InputRow(
            id=slot.input_id,
            raw_data_jsonb=raw_data,
            received_at=now,
            status=InputStatus.RECEIVED.value,
            scope_jsonb=schedule.scope,
        )
    )
    session.flush()
    session.add(
        PredictionSlotRow(
            id=slot.id,
            prediction_config_id=schedule.id,
            slot_at=slot_at,
            status=SlotStatus.CALLED.value,
            input_id=slot.input_id,
            deadline_at=slot.deadline_at,
            created_at=now,
        )
    )
    session.flush()
    session.add(
        SlotCallRow(
            slot_id=slot.id,
            lease_name=fence.name,
            epoch=fence.epoch,
            model_ids_jsonb=list(slot.model_ids),
            called_at=now,
            closed_at=None if slot.model_ids else now,
        )
    )
    absences = [slot.prediction(model_id, PredictionStatus.ABSENT) for model_id in sorted(absent)]
    if absences:
        session.connection().execute(insert(PredictionRow), absences)
    session.flush()
    return slot


def miss_slots(session: Session, schedule: Schedule, indexes: range, reason: str, now: datetime) -> int:
    """Write the slots' rows as missed: nobody is asked. Returns how many of them had no row before."""
    statement = text(
        """
        INSERT INTO prediction_slots (id, prediction_config_id, slot_at, status, reason, created_at)
        SELECT replace(gen_random_uuid()::text, '-', ''), :schedule_id,
               to_timestamp(:offset + index * CAST(:interval AS float8)), 'MISSED', :reason, :now
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS index
        ON CONFLICT (prediction_config_id, slot_at) DO NOTHING
        """
    )
    values = {
        "schedule_id": schedule.id,
        "offset": schedule.offset_seconds,
        "interval": schedule.interval_seconds,
        "reason": reason,
        "now": now,
        "first": indexes.start,
        "last": indexes.stop - 1,
    }
    return session.connection().execute(statement, values).rowcount


def end_interrupted(session: Session, lease_name: str, working: list[str], now: datetime) -> int:
    """FAILED "interrupted" for every model that was to be asked, has no row, and that nobody asks any more.

    `working` are the slots that the caller itself is asking. Returns how many predictions it ended.
    """
    values = {"lease": lease_name, "working": working, "reason": INTERRUPTED, "now": now}
    ended = session.connection().execute(_INTERRUPT, values).rowcount
    session.connection().execute(_CLOSE_INTERRUPTED, values)
    return ended


def close_slot(session: Session, slot_id: str, lease_name: str, now: datetime) -> None:
    """Say that every model asked in the slot has its row."""
    session.connection().execute(_CLOSE, {"slot_id": slot_id, "lease": lease_name, "now": now})
