"""Rounds: queued for the predict workers, and how far they have come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text
from sqlmodel import Session, col, select

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.repositories.predictions import prediction_entity
from coordinator_node.db.repositories.scores import score_entity
from coordinator_node.db.tables import PredictionRow, PredictionSlotRow, ScoreRow
from coordinator_node.entities.ids import new_ids
from coordinator_node.entities.json_values import UnstorableError, fault_in, storable
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus, ScoreRecord
from coordinator_node.entities.tournament import RoundStatus
from coordinator_node.runtime.notify import ROUNDS, notify
from coordinator_node.schemas.report.rounds import MAX_FEATURES, MAX_ID_CHARACTERS
from coordinator_node.services.model_shards import known_models, write_calls
from coordinator_node.services.tournament.arguments import row_arguments, row_scope
from coordinator_node.services.tournament.errors import RoundConflictError, RoundInputError, UnknownRoundError

_WRITE_INPUTS = text(
    """
    INSERT INTO inputs (id, raw_data_jsonb, received_at, status, scope_jsonb)
    SELECT given.id, given.raw_data, :now, 'RECEIVED', given.scope
    FROM unnest(CAST(:ids AS text[]), CAST(:rows AS jsonb[]), CAST(:scopes AS jsonb[])) AS given(id, raw_data, scope)
    """
)
_WRITE_SLOTS = text(
    """
    INSERT INTO prediction_slots (id, slot_at, status, input_id, created_at, round_id, feature_index)
    SELECT given.id, :now, 'CALLED', given.input_id, :now, :round_id, given.number - 1
    FROM unnest(CAST(:ids AS text[]), CAST(:inputs AS text[])) WITH ORDINALITY AS given(id, input_id, number)
    ON CONFLICT (round_id, feature_index) DO NOTHING
    """
)
_ROWS = text(
    """
    SELECT count(*) AS features, min(slot.slot_at) AS created_at, count(input.actuals_jsonb) AS truths
    FROM prediction_slots AS slot JOIN inputs AS input ON input.id = slot.input_id WHERE slot.round_id = :round_id
    """
)
_CALLS = text(
    """
    SELECT COALESCE(sum(jsonb_array_length(call.model_ids_jsonb)), 0) AS models,
           count(*) FILTER (WHERE call.closed_at IS NULL) AS open, count(*) FILTER (WHERE call.epoch > 0) AS claimed
    FROM prediction_slots AS slot JOIN slot_calls AS call ON call.slot_id = slot.id
    WHERE slot.round_id = :round_id AND slot.feature_index = 0
    """
)
_COUNTS = text(
    """
    SELECT prediction.status, count(*) AS predictions FROM prediction_slots AS slot
    JOIN predictions AS prediction ON prediction.slot_id = slot.id
    WHERE slot.round_id = :round_id GROUP BY prediction.status
    """
)


def queue_round(session: Session, config: CrunchConfig, round_id: str, features: Sequence[Any], now: datetime) -> None:
    """Write down that every known model is to be asked for every row of `features`, a list of JSON objects.

    The caller commits; the predict workers are woken then.

    Raises:
        RoundInputError: no rows or too many, one that is no object or cannot be stored, an argument of `call_method`
            that a row does not give, or an id that is empty, too long or cannot be stored.
        RoundConflictError: there is a round of this id, or no model is known.
    """
    rows, scopes = checked_round(config, round_id, features)
    models = known_models(session, now)
    if not models:
        raise RoundConflictError(
            f"round {round_id!r} was not queued: no model is known; a predict worker must have connected to one, and it"
            " must not have been away for 24 hours"
        )
    # In the order of the rows, which metrics go by among predictions of one moment.
    inputs, slots = new_ids(len(rows)), new_ids(len(rows))
    session.connection().execute(
        _WRITE_INPUTS, {"ids": inputs, "rows": _documents(rows), "scopes": _documents(scopes), "now": now}
    )
    values = {"ids": slots, "inputs": inputs, "round_id": round_id, "now": now}
    if session.connection().execute(_WRITE_SLOTS, values).rowcount != len(rows):
        raise RoundConflictError(f"round {round_id!r} exists already; ask under another id, or for its status")
    write_calls(session, slots[0], models, now)
    notify(session, ROUNDS)


def checked_round(
    config: CrunchConfig, round_id: str, features: Sequence[Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A round's feature rows as they are stored, and the scope of each; live and in backtests.

    Raises:
        RoundInputError: as `queue_round`.
    """
    if not 1 <= len(round_id) <= MAX_ID_CHARACTERS or fault_in(round_id, "round_id"):
        raise RoundInputError(f"a round's id must be plain text of 1 to {MAX_ID_CHARACTERS} characters")
    if not 1 <= len(features) <= MAX_FEATURES:
        raise RoundInputError(f"features holds {len(features)} rows; a round has 1 to {MAX_FEATURES}")
    rows = [_checked(row, f"features[{index}]") for index, row in enumerate(features)]
    scopes = [row_scope(config, row, round_id, index) for index, row in enumerate(rows)]
    for row, scope in zip(rows, scopes, strict=True):
        row_arguments(config.call_method, row, scope)
    return rows, scopes


def round_status(connection: Connection, round_id: str) -> dict[str, Any]:
    """How far a round has come.

    Returns:
        round_id, status (a RoundStatus), created_at, features and models (how many), expected (their product: the
        predictions there will be), predictions (those there are), and of these pending, scored, failed, absent;
        truths: of how many rows the ground truth is given.

    Raises:
        UnknownRoundError: there is none of that id.
    """
    values = {"round_id": round_id}
    rows = connection.execute(_ROWS, values).one()
    if not rows.features:
        raise UnknownRoundError(round_id)
    calls = connection.execute(_CALLS, values).one()
    counts: dict[str, int] = {row.status: row.predictions for row in connection.execute(_COUNTS, values)}
    return {
        "round_id": round_id,
        "status": _status(calls, rows.truths, counts.get(PredictionStatus.PENDING, 0)),
        "created_at": rows.created_at,
        "features": rows.features,
        "models": calls.models,
        "expected": rows.features * calls.models,
        "predictions": sum(counts.values()),
        **{status.value.lower(): counts.get(status.value, 0) for status in PredictionStatus},
        "truths": rows.truths,
    }


def round_predictions(session: Session, round_id: str, status: str | None = None) -> list[PredictionRecord]:
    """A round's predictions, or those of one status, by feature index and model; [] for a round that there is not."""
    prediction, slot = PredictionRow, PredictionSlotRow
    query = select(prediction).join(slot, col(prediction.slot_id) == col(slot.id)).where(slot.round_id == round_id)
    if status is not None:
        query = query.where(prediction.status == status)
    rows = session.exec(query.order_by(col(slot.feature_index), col(prediction.model_id)))
    return [prediction_entity(row) for row in rows]


def round_scores(session: Session, round_id: str) -> list[ScoreRecord]:
    """The scores of a round's predictions, by feature index and model."""
    prediction, slot, score = PredictionRow, PredictionSlotRow, ScoreRow
    query = (
        select(score)
        .join(prediction, col(score.prediction_id) == col(prediction.id))
        .join(slot, col(prediction.slot_id) == col(slot.id))
        .where(slot.round_id == round_id)
        .order_by(col(slot.feature_index), col(prediction.model_id), col(score.scored_at))
    )
    return [score_entity(row) for row in session.exec(query)]


def _status(calls: Row[Any], truths: int, pending: int) -> RoundStatus:
    if calls.open:
        return RoundStatus.CALLING if calls.claimed else RoundStatus.QUEUED
    if not truths:
        return RoundStatus.CALLED
    return RoundStatus.SCORING if pending else RoundStatus.SCORED


def _checked(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RoundInputError(f"{where} is no JSON object")
    try:
        plain: dict[str, Any] = storable(row, where)
    except UnstorableError as error:
        raise RoundInputError(str(error)) from None
    return plain


def _documents(values: Sequence[dict[str, Any]]) -> list[str]:
    return [json.dumps(value, allow_nan=False) for value in values]
