"""The numbers of a prediction and its score: signal, score and actual return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

SIGNAL_FIELDS: tuple[str, ...] = ("value", "expected_return", "signal", "prediction")
RETURN_FIELDS: tuple[str, ...] = ("actual_return", "profit")


def as_number(value: Any) -> float | None:
    """The value as a finite float; None for NaN, infinity and whatever is no number. A bool is no number."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if not _is_number(value):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        return None
    return number if math.isfinite(number) else None


def signal_of(output: Mapping[str, Any]) -> float | None:
    """What a model says, from its output: the first of SIGNAL_FIELDS that holds a number, else the first number.

    None where there is no number, where that number is not finite, and where a field of SIGNAL_FIELDS is there but
    null: another field of the output would mean something else.
    """
    null_field = False
    for name in SIGNAL_FIELDS:
        value = output.get(name)
        if _is_number(value):
            return as_number(value)
        null_field = null_field or (value is None and name in output)
    if null_field:
        return None
    return next((as_number(value) for value in output.values() if _is_number(value)), None)


def return_of(result: Mapping[str, Any], ground_truth: Any = None) -> float | None:
    """The actual return, from a score's result, else from the ground truth; None where neither has a finite number."""
    for source in (result, ground_truth):
        if type(source) is dict or isinstance(source, Mapping):
            for name in RETURN_FIELDS:
                number = as_number(source.get(name))
                if number is not None:
                    return number
    return None


def score_of(result: Mapping[str, Any]) -> float | None:
    """The score: the result's `value`; None where it has no finite number."""
    return as_number(result.get("value"))


def _is_number(value: Any) -> bool:
    # The two types that JSON brings are told apart first: asking for the abstract one takes ten times as long.
    kind = type(value)
    return kind is float or kind is int or (isinstance(value, Real) and kind is not bool)
