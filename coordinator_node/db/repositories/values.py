"""What may be stored, and how an entity's values become a row's."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from coordinator_node.entities import json_values
from coordinator_node.entities.times import as_utc


def storable(row: str, field: str, document: Any) -> Any:
    """A document as plain JSON, if a JSONB column can hold it.

    Args:
        row: what the message calls the row, such as "prediction 4711".
        field: the field of it.
        document: a JSON document, or None.

    Raises:
        ValueError: it holds NaN or Infinity, text that the database cannot store, or a value that JSON has not.
    """
    try:
        return json_values.storable(document, field)
    except json_values.UnstorableError as error:
        raise ValueError(f"{row}: {error}") from None


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
