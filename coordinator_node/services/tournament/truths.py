"""The ground truth of a round: matched to its feature rows, stored with their inputs, and the predictions made due."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from itertools import batched
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import Row, text
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.json_values import UnstorableError, storable
from coordinator_node.services.tournament.errors import RoundConflictError, RoundInputError, UnknownRoundError

# So many feature rows are made due in one statement, so that none takes long however many models there are.
ROWS_AT_ONCE = 200

_INDEX = re.compile("0|[1-9][0-9]{0,8}")

# Held until the transaction ends: of two that give a truth at once, the second finds what the first has given.
_LOCK = text(
    """
    SELECT id, slot_at FROM prediction_slots WHERE round_id = :round_id AND feature_index = 0 FOR NO KEY UPDATE
    """
)
_OPEN = text("SELECT count(*) FROM slot_calls WHERE slot_id = :slot_id AND closed_at IS NULL")
_ROWS = text(
    """
    SELECT slot.id, slot.input_id, input.actuals_jsonb AS truth
    FROM prediction_slots AS slot JOIN inputs AS input ON input.id = slot.input_id
    WHERE slot.round_id = :round_id ORDER BY slot.feature_index
    """
)
_STORE = text(
    """
    UPDATE inputs SET status = 'RESOLVED', actuals_jsonb = given.truth
    FROM unnest(CAST(:ids AS text[]), CAST(:truths AS jsonb[])) AS given(id, truth) WHERE inputs.id = given.id
    """
)
_COUNT_DUE = text(
    """
    SELECT count(*) FROM prediction_slots AS slot JOIN predictions AS prediction ON prediction.slot_id = slot.id
    WHERE slot.round_id = :round_id AND prediction.status = 'PENDING' AND prediction.resolvable_at <= :due
    """
)
_MAKE_DUE = text("UPDATE predictions SET resolvable_at = :due WHERE slot_id = ANY(CAST(:slots AS text[]))")


def give_truth(session: Session, config: CrunchConfig, round_id: str, ground_truth: Any, now: datetime) -> datetime:
    """Store a round's ground truth, and make the predictions of the rows that have one now due. The caller commits.

    Rows that have the same truth already stay as they are, so that giving it twice changes nothing.

    Args:
        session: what it writes with.
        config: `ground_truth_type` validates each truth.
        round_id: which round.
        ground_truth: see `truths_by_index`.
        now: when it is given; the predictions' `resolvable_at`.

    Returns:
        From when on the predictions are due: `now`, or the time of the round should that be later.

    Raises:
        UnknownRoundError: there is none of that id.
        RoundConflictError: its models are still being asked, or a row has another truth.
        RoundInputError: the shape is wrong, or a truth is refused by `ground_truth_type` or cannot be stored.
    """
    first = session.connection().execute(_LOCK, {"round_id": round_id}).one_or_none()
    if first is None:
        raise UnknownRoundError(round_id)
    if session.connection().execute(_OPEN, {"slot_id": first.id}).scalar_one():
        raise RoundConflictError(
            f"round {round_id!r} is still being called; give its ground truth once its status says CALLED"
        )
    rows = session.connection().execute(_ROWS, {"round_id": round_id}).all()
    truths = truths_by_index(ground_truth, len(rows), config.ground_truth_type)
    new = [(rows[index], truth) for index, truth in truths.items() if _is_new(rows[index], index, truth, round_id)]
    due: datetime = max(now, first.slot_at)
    for batch in batched(new, ROWS_AT_ONCE):
        values = {"ids": [row.input_id for row, _ in batch], "truths": [json.dumps(truth) for _, truth in batch]}
        session.connection().execute(_STORE, values)
        session.connection().execute(_MAKE_DUE, {"due": due, "slots": [row.id for row, _ in batch]})
    return due


def count_due(session: Session, round_id: str, due: datetime) -> int:
    """How many predictions of a round wait to be scored though they are due."""
    found: int = session.connection().execute(_COUNT_DUE, {"round_id": round_id, "due": due}).scalar_one()
    return found


def truths_by_index(ground_truth: Any, count: int, truth_type: type[BaseModel]) -> dict[int, dict[str, Any]]:
    """The validated truth of each feature row that one is given for, by its index.

    Args:
        ground_truth: a list with one entry for each row, an object or null for a row whose truth is not known yet; or
            an object whose keys are indexes ("0", "1"…; of any rows); or one whose keys are none: it is the truth of
            every row.
        count: how many rows the round has.
        truth_type: what validates each truth.

    Raises:
        RoundInputError: another shape; keys of which only some are indexes; an index that no row has; no truth at all;
            a truth that `truth_type` refuses or that cannot be stored.
    """
    if isinstance(ground_truth, list):
        given = _of_list(ground_truth, count)
    elif isinstance(ground_truth, Mapping):
        if ground_truth and not any(_is_index(key) for key in ground_truth):
            return dict.fromkeys(range(count), _validated(ground_truth, "ground_truth", truth_type))
        given = _of_object(ground_truth, count)
    else:
        raise RoundInputError("ground_truth is neither a list nor an object")
    if not given:
        raise RoundInputError("ground_truth holds no truth")
    return {index: _validated(truth, f"ground_truth[{index}]", truth_type) for index, truth in given.items()}


def _is_index(key: Any) -> bool:
    return _INDEX.fullmatch(str(key)) is not None


def _of_list(ground_truth: list[Any], count: int) -> dict[int, Any]:
    if len(ground_truth) != count:
        raise RoundInputError(f"ground_truth holds {len(ground_truth)} entries; the round has {count} feature rows")
    return {index: truth for index, truth in enumerate(ground_truth) if truth is not None}


def _of_object(ground_truth: Mapping[Any, Any], count: int) -> dict[int, Any]:
    if not all(_is_index(key) for key in ground_truth):
        raise RoundInputError("ground_truth mixes feature indexes with other keys; use indexes alone, or none")
    given = {int(key): truth for key, truth in ground_truth.items()}
    beyond = [index for index in given if index >= count]
    if beyond:
        raise RoundInputError(f"ground_truth[{beyond[0]}]: the round has only {count} feature rows, the first being 0")
    return given


def _validated(truth: Any, where: str, truth_type: type[BaseModel]) -> dict[str, Any]:
    if not isinstance(truth, Mapping):
        raise RoundInputError(f"{where} is no JSON object")
    try:
        validated: dict[str, Any] = storable(truth_type.model_validate(dict(truth)), where)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise RoundInputError(f"{where}{'.' if place else ''}{place}: {fault['msg']}") from None
    except UnstorableError as error:
        raise RoundInputError(str(error)) from None
    return validated


def _is_new(row: Row[Any], index: int, truth: dict[str, Any], round_id: str) -> bool:
    if row.truth is not None and row.truth != truth:
        raise RoundConflictError(
            f"round {round_id!r}: feature row {index} has another ground truth already, and keeps it"
        )
    return row.truth is None
