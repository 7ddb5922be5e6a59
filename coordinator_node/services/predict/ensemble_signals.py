"""Ensemble signals: when a slot closes, the virtual models' predictions are made from the answers in it.

A slot is closed by the transaction that closes the last of its calls, and that transaction makes them: for each enabled
ensemble the mean of its members' answers, by the newest weights that were computed at or before the slot. So the signal
is there before the outcome, and knows nothing that was not known at the slot.

An ensemble is asked nothing and is none of a slot's models: it owes no prediction. It has one in each closed slot that
it had weights for and in which a member answered with a number; no row is written where there is none to make.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.tables import PredictionRow
from coordinator_node.entities.ensemble import ensemble_model_id
from coordinator_node.entities.json_values import reason_of
from coordinator_node.entities.prediction import PredictionRecord
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.ensemble import build_ensemble_predictions, normalised_weights
from coordinator_node.services.merkle.commitments import commit_predictions
from coordinator_node.services.predict.lanes import Answer
from coordinator_node.services.predict.outcomes import Outcomes
from coordinator_node.services.tournament_predict import is_tournament

log = get_logger(__name__)

MOST_FIELDS = 100
"""Numbers that are read of one answer, the declared ones first: a model may send as many as fit into an answer."""

# The slots' rows are locked before anybody asks whether all calls are closed: of two workers that close the last two
# calls of a slot at once, the one that comes second sees what the first has done. New predictions do not wait for it.
_LOCK = text(
    """
    SELECT id FROM prediction_slots WHERE id = ANY(CAST(:slots AS text[])) AND round_id IS NULL
    ORDER BY id FOR NO KEY UPDATE
    """
)
# An answer is told by its output, not by its status: the score stage may have been here before, where a dead worker's
# slot is closed late or the horizon is 0. Only the numbers of an output are read; a bool is none.
_CLOSED = text(
    """
    SELECT slot.id AS slot_id, slot.input_id, slot.prediction_config_id, slot.slot_at, schedule.scope_key,
           COALESCE(input.scope_jsonb, '{}') AS scope,
           slot.slot_at + make_interval(secs => (schedule.schedule_jsonb->>'resolve_horizon_seconds')::float8)
               AS resolvable_at,
           known.weights, given.outputs
    FROM prediction_slots AS slot
    JOIN inputs AS input ON input.id = slot.input_id
    JOIN scheduled_prediction_configs AS schedule ON schedule.id = slot.prediction_config_id
    CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(ensemble.model_id, newest.weights_jsonb) AS weights
        FROM unnest(CAST(:ensembles AS text[])) AS ensemble(model_id)
        CROSS JOIN LATERAL (
            SELECT weights_jsonb FROM ensemble_weights
            WHERE model_id = ensemble.model_id AND computed_at <= slot.slot_at
            ORDER BY computed_at DESC, id DESC LIMIT 1
        ) AS newest
    ) AS known
    CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(prediction.model_id, answer.numbers) AS outputs
        FROM predictions AS prediction
        CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(field.key, field.value) AS numbers
            FROM (SELECT key, value FROM jsonb_each(prediction.inference_output_jsonb)
                  WHERE jsonb_typeof(value) = 'number'
                  ORDER BY key = ANY(CAST(:declared AS text[])) DESC, key LIMIT :most) AS field
        ) AS answer
        WHERE prediction.slot_id = slot.id AND NOT starts_with(prediction.model_id, '__ensemble_')
          AND jsonb_typeof(prediction.inference_output_jsonb) = 'object' AND answer.numbers IS NOT NULL
    ) AS given
    WHERE slot.id = ANY(CAST(:slots AS text[])) AND known.weights IS NOT NULL AND given.outputs IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM slot_calls AS call WHERE call.slot_id = slot.id AND call.closed_at IS NULL)
    """
)


class EnsembleSignals:
    """Makes the predictions of the config's enabled ensembles; costs nothing where there are none.

    Rounds of a tournament have no ensembles: their models are asked at their own pace, and no moment is the slot's.
    """

    def __init__(self, config: CrunchConfig, outcomes: Outcomes, *, commits: bool = True) -> None:
        self._commits = commits
        enabled = [] if is_tournament(config) else [e.name for e in config.ensembles if e.enabled]
        self._names = {ensemble_model_id(name): name for name in enabled}
        self._outcomes = outcomes
        fields = config.output_type.model_fields.items()
        self._declared = {name for field, info in fields for name in (field, info.alias) if name}
        # The ensembles whose last signal could not be made, or the whole step ("").
        self._failing: set[str] = set()

    def make(self, session: Session, slots: Collection[str]) -> int:
        """Make what the slots among these that are closed now have to have; returns how many predictions.

        To be called behind the statement that closed calls of the slots, in its transaction. Whatever goes wrong is
        logged, once until it has worked again, and leaves the rest of the transaction as it is.

        Raises:
            DBAPIError: the connection is lost, and the transaction with it.
        """
        if not self._names or not slots:
            return 0
        try:
            with session.begin_nested():
                made = self._make(session, slots)
        except Exception as error:  # signals are made from the others' answers, and never cost those their storing
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise
            self._failed("", reason_of(error))
            return 0
        self._failing.discard("")
        return made

    def _make(self, session: Session, slots: Collection[str]) -> int:
        values: dict[str, Any] = {"slots": sorted(slots)}
        session.connection().execute(_LOCK, values)
        values |= {"ensembles": list(self._names), "declared": sorted(self._declared), "most": MOST_FIELDS}
        closed = session.connection().execute(_CLOSED, values).all()
        signals = (self._signal(slot, model_id) for slot in closed for model_id in self._names)
        rows = [signal for signal in signals if signal]
        if not rows:
            return 0
        if self._commits:
            # One that is made only after its outcome, because its slot closed late, is committed late.
            rows = commit_predictions(session, rows, rows[-1]["answered_at"])
        statement = insert(PredictionRow).values(rows).on_conflict_do_nothing().returning(col(PredictionRow.id))
        return len(session.connection().execute(statement).all())

    def _signal(self, slot: Row[Any], model_id: str) -> dict[str, Any] | None:
        """An ensemble's prediction in a closed slot; None where it has no weights or no member answered."""
        name = self._names[model_id]
        try:
            prediction = self._averaged(name, slot, slot.weights.get(model_id))
        except Exception as error:  # weights that are none, or what else is stored: this ensemble's signal only
            self._failed(name, reason_of(error))
            return None
        if prediction is None:
            return None
        # As the answers that it was made of: read by `output_type` and the operator's validator.
        columns = self._outcomes.of(Answer(value=prediction.inference_output))
        if columns["failed_reason"]:
            self._failed(name, columns["failed_reason"])
            return None
        self._failing.discard(name)
        return {**_row(prediction, slot), **columns}

    def _averaged(self, name: str, slot: Row[Any], weights: Mapping[str, Any] | None) -> PredictionRecord | None:
        members = normalised_weights(weights or {})
        outputs = {model_id: output for model_id, output in slot.outputs.items() if model_id in members}
        made = build_ensemble_predictions(name, members, _prediction_dicts(slot, self._common(outputs)))
        return made[0] if made else None

    def _common(self, outputs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The fields that `output_type` declares, and of the others those that more than half of the members sent.

        So no single model adds a field of its own to the signal, such as one that metrics would take for the signal.
        """
        sent = Counter(field for output in outputs.values() for field in output)
        kept = {field for field, count in sent.items() if field in self._declared or 2 * count > len(outputs)}
        common = {
            model_id: {field: number for field, number in output.items() if field in kept}
            for model_id, output in outputs.items()
        }
        return {model_id: output for model_id, output in common.items() if output}

    def _failed(self, name: str, reason: str) -> None:
        if name not in self._failing:
            self._failing.add(name)
            log.error("an ensemble's signal was not made; its slots have none", ensemble=name or "all", reason=reason)


def _prediction_dicts(slot: Row[Any], outputs: Mapping[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    shared = {
        "input_id": slot.input_id,
        "scope_key": slot.scope_key,
        "scope": slot.scope,
        "prediction_config_id": slot.prediction_config_id,
        "performed_at": slot.slot_at,
        "resolvable_at": slot.resolvable_at,
    }
    return {model_id: [{**shared, "inference_output": output}] for model_id, output in outputs.items()}


def _row(prediction: PredictionRecord, slot: Row[Any]) -> dict[str, Any]:
    return {
        "id": prediction.id,
        "input_id": prediction.input_id,
        "model_id": prediction.model_id,
        "prediction_config_id": prediction.prediction_config_id,
        "scope_key": prediction.scope_key,
        "scope_jsonb": prediction.scope,
        "meta_jsonb": prediction.meta,
        "performed_at": prediction.performed_at,
        "resolvable_at": prediction.resolvable_at,
        "slot_id": slot.slot_id,
    }
