"""What operators' code returned, as JSON that the database stores: plain types, finite numbers, storable text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from coordinator_node.entities.errors import RAISED_BY_CALLABLES

# Postgres stores neither NUL in text, nor half of a surrogate pair, and refuses the whole statement that holds one.
_UNSTORABLE_TEXT = re.compile("[\x00\ud800-\udfff]")


_LARGE = 2**53
"""Whole numbers below it are floats too."""


class UnstorableError(ValueError):
    """A value that no JSONB column can hold, or that is not finite; the message names its place."""


def to_json(value: Any) -> Any:
    """The value in JSON's types: models and mappings become dicts, times and enums text, numpy's scalars numbers.

    NaN and infinity are kept; `fault_in` finds them.

    Raises:
        UnstorableError: a type that JSON has not.
    """
    if isinstance(value, BaseModel):
        # Its own JSON mode would write null for an infinity among its extra fields.
        value = value.model_dump()
    try:
        return to_jsonable_python(value, inf_nan_mode="constants", fallback=_numpy_value)
    except (PydanticSerializationError, ValueError) as error:
        raise UnstorableError(str(error)) from None


def is_plain(value: Any) -> bool:
    """Whether a value is a flat dict that can be stored as it is, so that it need not be converted and looked through.

    Most of what models and operators' functions give is one. False decides nothing.
    """
    if type(value) is not dict:
        return False
    for key, item in value.items():
        kind = type(item)
        if kind is float:
            if item - item != 0.0:  # NaN and infinity alone; calling isfinite takes twice as long
                return False
        elif not (item is None or kind is bool or (kind is int and -_LARGE < item < _LARGE)):
            return False
        if type(key) is not str:
            return False
    names = "".join(value)
    return names.isascii() and names.isprintable()


def storable(value: Any, where: str) -> Any:
    """`to_json` of the value, if it can be stored.

    Raises:
        UnstorableError: see `to_json` and `fault_in`; the message begins with `where`.
    """
    if is_plain(value):
        return dict(value)
    plain = to_json(value)
    fault = fault_in(plain, where)
    if fault:
        raise UnstorableError(fault)
    return plain


def fault_in(value: Any, where: str) -> str | None:
    """What keeps a JSON value from being stored, with its place below `where`; None where nothing does."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value}"
    if isinstance(value, str):
        return f"{where} holds text that the database cannot store" if _UNSTORABLE_TEXT.search(value) else None
    if isinstance(value, Mapping):
        return _fault_in_mapping(value, where)
    if isinstance(value, list):
        return next((fault for index, item in enumerate(value) if (fault := fault_in(item, f"{where}[{index}]"))), None)
    if isinstance(value, int) and abs(value) > 2**1023:
        return f"{where} is larger than any float"
    return None


def finite_or_null(value: Any) -> Any:
    """The JSON value with null in the place of every NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite_or_null(item) for item in value]
    return value


def storable_text(text: str, limit: int = 2000) -> str:
    """The text, at most `limit` characters of it, without what the database cannot store."""
    return _UNSTORABLE_TEXT.sub("\ufffd", text)[:limit]


def reason_of(error: BaseException) -> str:
    """One line that says what was raised: `TypeError: …`, storable."""
    try:
        said = " ".join(str(error).split())
    except RAISED_BY_CALLABLES:  # an operator's exception may fail even to say what it is
        said = "(its text cannot be read)"
    return storable_text(f"{type(error).__name__}: {said}" if said else type(error).__name__)


def validation_reason(error: ValidationError) -> str:
    """The first faults that pydantic found, in one line."""
    faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in error.errors()[:3])
    return f"ValidationError: {error.title}: {faults}"


def _fault_in_mapping(value: Mapping[Any, Any], where: str) -> str | None:
    for key, item in value.items():
        if isinstance(key, str) and _UNSTORABLE_TEXT.search(key):
            return f"a key of {where} holds text that the database cannot store"
        fault = fault_in(item, f"{where}.{key}")
        if fault:
            return fault
    return None


def _numpy_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise UnstorableError(f"a {type(value).__name__} is no JSON value")
