"""The rows of rounds, as the worker that calls their models sees them: claiming a shard's part, with what to ask.

A round has no deadline, so that nothing of it is lost with its caller: whoever holds the shard next claims the call
anew and goes on, for each model, with the first feature row that has no prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, text
from sqlmodel import Session

from coordinator_node.crunch_config import CallMethodConfig
from coordinator_node.entities.ids import new_id
from coordinator_node.services.predict.model_nodes import Call, make_call
from coordinator_node.services.predict.slots import CallKey, ShardCall, call_keys
from coordinator_node.services.tournament.arguments import row_arguments, scope_key_of
from coordinator_node.services.tournament.errors import RoundInputError

OPEN_ROUNDS = 8
"""So many rounds are called at once, the oldest; it bounds memory. A model is still asked one row at a time."""

UNTIL_TRUTH = datetime(9999, 12, 31, tzinfo=UTC)
"""`resolvable_at` of a prediction whose ground truth is not given yet: nobody finds it due."""

_CLAIM = text(
    """
    WITH oldest AS (
        SELECT DISTINCT slot.slot_at, slot.id
        FROM slot_calls AS call JOIN prediction_slots AS slot ON slot.id = call.slot_id
        WHERE call.closed_at IS NULL AND call.lease_name = ANY(:shards) AND slot.round_id IS NOT NULL
        ORDER BY slot.slot_at, slot.id LIMIT :most
    )
    UPDATE slot_calls AS call SET epoch = held.epoch, called_at = :now
    FROM unnest(CAST(:shards AS text[]), CAST(:epochs AS bigint[])) AS held(name, epoch), prediction_slots AS slot
    WHERE call.closed_at IS NULL AND call.lease_name = held.name
      AND slot.id = call.slot_id AND slot.id IN (SELECT id FROM oldest)
      AND NOT EXISTS (SELECT 1
                      FROM unnest(CAST(:slots AS text[]), CAST(:slot_shards AS text[])) AS working(slot_id, shard)
                      WHERE working.slot_id = call.slot_id AND working.shard = call.lease_name)
    RETURNING call.slot_id, call.lease_name, call.epoch, call.model_ids_jsonb, slot.slot_at, slot.round_id
    """
)
_ROWS = text(
    """
    SELECT slot.id, slot.input_id, input.raw_data_jsonb, input.scope_jsonb
    FROM prediction_slots AS slot JOIN inputs AS input ON input.id = slot.input_id
    WHERE slot.round_id = :round_id ORDER BY slot.feature_index
    """
)
_ANSWERED = text(
    """
    SELECT prediction.model_id, max(slot.feature_index) + 1 AS next
    FROM prediction_slots AS slot JOIN predictions AS prediction ON prediction.slot_id = slot.id
    WHERE slot.round_id = :round_id GROUP BY prediction.model_id
    """
)


@dataclass(frozen=True)
class RoundRow:
    """One feature row: what a model is asked, or `fault`, why it cannot be asked that."""

    slot_id: str
    input_id: str
    scope: dict[str, Any]
    call: Call | None
    fault: str | None = None


@dataclass(frozen=True)
class RoundCall(ShardCall):
    """One shard's part of a round. `answered` says of how many rows, from the first, a model has predictions."""

    round_id: str
    rows: tuple[RoundRow, ...]
    answered: Mapping[str, int]

    def left(self, model_id: str) -> tuple[RoundRow, ...]:
        """The rows that a model is still to be asked."""
        return self.rows[self.answered.get(model_id, 0) :]

    def prediction(self, row: RoundRow, model_id: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The row of one model's prediction for one feature row, with what came of asking it."""
        return {
            "id": new_id(),
            "input_id": row.input_id,
            "model_id": model_id,
            "prediction_config_id": None,
            "scope_key": scope_key_of(self.round_id),
            "scope_jsonb": row.scope,
            "meta_jsonb": {},
            "performed_at": self.slot_at,
            "resolvable_at": UNTIL_TRUTH,
            "slot_id": row.slot_id,
            **columns,
        }


def claim_rounds(
    session: Session, shards: Mapping[str, int], working: Iterable[CallKey], method: CallMethodConfig, now: datetime
) -> list[RoundCall]:
    """Claim the open calls of the oldest rounds for these shards (name to epoch), but those that are worked on."""
    if not shards:
        return []
    values = {"shards": list(shards), "epochs": list(shards.values()), "most": OPEN_ROUNDS, "now": now}
    claimed = session.connection().execute(_CLAIM, {**values, **call_keys(working)}).all()
    rounds = {round_id: _Round(session, round_id, method) for round_id in {row.round_id for row in claimed}}
    return [
        RoundCall(
            slot_id=row.slot_id,
            shard=row.lease_name,
            epoch=row.epoch,
            slot_at=row.slot_at,
            model_ids=tuple(row.model_ids_jsonb or ()),
            round_id=row.round_id,
            rows=rounds[row.round_id].rows,
            answered=rounds[row.round_id].answered,
        )
        for row in claimed
    ]


class _Round:
    """What the calls of one round share."""

    def __init__(self, session: Session, round_id: str, method: CallMethodConfig) -> None:
        values = {"round_id": round_id}
        self.rows = tuple(_row(found, method) for found in session.connection().execute(_ROWS, values))
        self.answered = {found.model_id: found.next for found in session.connection().execute(_ANSWERED, values)}


def _row(found: Row[Any], method: CallMethodConfig) -> RoundRow:
    scope = found.scope_jsonb or {}
    try:
        call = make_call(method.method, row_arguments(method, found.raw_data_jsonb or {}, scope))
    except RoundInputError as error:  # the config has changed since the round was queued
        return RoundRow(found.id, found.input_id, scope, None, str(error))
    return RoundRow(found.id, found.input_id, scope, call)
