"""Reads the fields of a venue's answers, which are JSON of any shape until they were looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

LATEST_MS = 253_402_300_799_999
"""The end of the year 9999; a larger number of milliseconds is microseconds or no time at all."""


class UnreadableError(ValueError):
    """A row or message is not what the venue documents; the message says where."""


def number(value: object, what: str) -> Decimal:
    """A finite number, given as JSON number or as text, exactly as it is written.

    Raises:
        UnreadableError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UnreadableError(f"{what} is {value!r}, expected a number")
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise UnreadableError(f"{what} is {value!r}, expected a number") from None
    if not found.is_finite():
        raise UnreadableError(f"{what} is {value!r}, expected a finite number")
    return found


def integer(value: object, what: str) -> int:
    """A whole number, given as JSON number or as text.

    Raises:
        UnreadableError: it is none.
    """
    found = number(value, what)
    if abs(found) >= 2**63 or found != found.to_integral_value():
        raise UnreadableError(f"{what} is {value!r}, expected a whole number")
    return int(found)


def milliseconds(value: object, what: str) -> int:
    """A time in epoch milliseconds between 1970 and 9999.

    Raises:
        UnreadableError: it is none.
    """
    found = integer(value, what)
    if not 0 <= found <= LATEST_MS:
        raise UnreadableError(f"{what} is {value!r}, expected epoch milliseconds")
    return found


def item(row: object, index: int, what: str) -> Any:
    """One column of a row.

    Raises:
        UnreadableError: the row is no list, or too short.
    """
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) <= index:
        raise UnreadableError(f"the row has no {what}")
    return row[index]


def entry(row: object, key: str) -> Any:
    """One entry of an object.

    Raises:
        UnreadableError: it is no object, or lacks the entry.
    """
    if not isinstance(row, Mapping) or key not in row:
        raise UnreadableError(f"the object has no {key!r}")
    return row[key]
