"""From what a model sent back to an output that can be scored, or to the reason why not. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import InferenceOutput
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.json_values import UnstorableError, is_plain, reason_of, storable, storable_text
from coordinator_node.extensions.callable_resolver import configured_callable

MAX_ANSWER_BYTES = 1024 * 1024
# Of a refused answer, so much is kept for its author to see.
SHOWN_CHARACTERS = 200

Validator = Callable[[dict[str, Any]], dict[str, Any] | None]


class RefusedAnswerError(ValueError):
    """An answer that cannot be scored; the message says what was wrong with it and what was sent, shortened."""


def read_answer(answer: Any, output_type: type[BaseModel], validator: Validator | None = None) -> dict[str, Any]:
    """The output to store: the answer's fields, those of `output_type` validated, unknown ones kept.

    A bare number counts as the field `value`; a frame of one row as that row, of several rows as its columns' lists.

    Raises:
        RefusedAnswerError: a wrong shape, a field missing or of a wrong type, none of the declared fields, NaN or
            Infinity anywhere, or refused by the operator's `validator`.
    """
    plain = is_plain(answer)
    fields = dict(answer) if plain else _as_fields(answer)
    if plain and output_type is InferenceOutput and type(fields.get("value")) is float:
        return _ask(validator, fields) if validator else fields  # what the type would make of it
    names = _names_of(output_type)
    if names and names.isdisjoint(fields):
        raise RefusedAnswerError(f"wrong shape: none of the fields {', '.join(sorted(names))} in {shorten(answer)}")
    try:
        validated = output_type.model_validate(fields).model_dump(mode="json")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()[:3])
        raise RefusedAnswerError(f"wrong shape: {faults} in {shorten(answer)}") from None
    try:
        output: dict[str, Any] = storable({**fields, **validated}, "answer")
    except UnstorableError as error:
        raise RefusedAnswerError(f"{error} in {shorten(answer)}") from None
    return _ask(validator, output) if validator else output


@cache
def _names_of(output_type: type[BaseModel]) -> frozenset[str]:
    """The fields that a type declares, by the names that an answer may give them."""
    declared = output_type.model_fields
    return frozenset(declared) | {info.alias for info in declared.values() if info.alias}


def output_validator(settings: Settings) -> Validator | None:
    """INFERENCE_OUTPUT_VALIDATOR; None where it is not set."""
    return configured_callable(settings, "inference_output_validator")


def _ask(validator: Validator, output: dict[str, Any]) -> dict[str, Any]:
    try:
        accepted = validator(output)
        stored = storable(accepted, "its answer")
    except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything, and refuses the answer so
        raise RefusedAnswerError(f"refused by the output validator: {reason_of(error)}") from error
    if not isinstance(stored, dict):
        raise RefusedAnswerError(f"refused by the output validator: {shorten(output)}")
    return stored


def _as_fields(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        return {str(key): value for key, value in answer.items()}
    if isinstance(answer, int | float):
        return {"value": answer}
    if hasattr(answer, "to_dict") and hasattr(answer, "columns"):  # a frame, without importing pandas to ask
        rows: list[dict[str, Any]] = answer.to_dict(orient="records")
        if len(rows) == 1:
            return {str(key): value for key, value in rows[0].items()}
        if rows:
            return {str(key): [row[key] for row in rows] for key in rows[0]}
    raise RefusedAnswerError(f"wrong shape: neither a dict, a number nor a frame with rows, but {shorten(answer)}")


def shorten(value: Any) -> str:
    """A value as text of at most SHOWN_CHARACTERS that the database can store."""
    shown = repr(value)
    more = f"… ({len(shown)} characters)" if len(shown) > SHOWN_CHARACTERS else ""
    return storable_text(shown, SHOWN_CHARACTERS) + more
