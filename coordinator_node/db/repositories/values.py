"""What may be stored, and how an entity's values become a row's."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime

from coordinator_node.entities.times import as_utc

# json.dumps writes the character NUL as \u0000; an even number of backslashes before it belongs to other characters.
NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def storable[T](row: str, field: str, document: T) -> T:
    """The document itself, if a JSONB column can hold it.

    Args:
        row: what the message calls the row, such as "prediction 4711".
        field: the field of it.
        document: a JSON document, or None.

    Raises:
        ValueError: it holds NaN or Infinity, a NUL character, or a value that JSON has not.
    """
    try:
        written = json.dumps(document, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{row}: {field} cannot be stored as JSON: {error}") from None
    if NUL_IN_JSON.search(written):
        raise ValueError(f"{row}: {field} holds a NUL character, which the database cannot store")
    return document


def finite(row: str, field: str, number: float) -> float:
    """The number itself.

    Raises:
        ValueError: it is NaN or infinite; the message names the row.
    """
    if not math.isfinite(number):
        raise ValueError(f"{row}: {field} is {number}, and only finite numbers are stored")
    return number


def instant(value: datetime | None) -> datetime | None:
    """The same instant in UTC, a naive one read as UTC; None stays None."""
    return None if value is None else as_utc(value)
