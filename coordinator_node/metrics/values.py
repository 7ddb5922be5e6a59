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
    named = [output[name] for name in SIGNAL_FIELDS if name in output]
    candidates = [value for value in named if _is_number(value)]
    if not candidates and None not in named:
        candidates = [value for value in output.values() if _is_number(value)]
    return as_number(candidates[0]) if candidates else None


def return_of(result: Mapping[str, Any], ground_truth: Any = None) -> float | None:
    """The actual return, from a score's result, else from the ground truth; None where neither has a finite number."""
    for source in (result, ground_truth):
        if isinstance(source, Mapping):
            for name in RETURN_FIELDS:
                number = as_number(source.get(name))
                if number is not None:
                    return number
    return None


def score_of(result: Mapping[str, Any]) -> float | None:
    """The score: the result's `value`; None where it has no finite number."""
    return as_number(result.get("value"))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
