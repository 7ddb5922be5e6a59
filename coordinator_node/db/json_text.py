"""JSON documents as text, for statements whose rows are many: parsing is most of what reading them costs."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic_core import from_json

encode_json = json.JSONEncoder(allow_nan=False).encode
"""A document's text. One encoder, because `json.dumps` makes a new one for every call that refuses NaN."""


def parse_json(document: str | bytes | None) -> Any:
    """The value of a JSONB column that was selected as text; None for NULL.

    What `json.loads` gives, in about a tenth of the time; but a document that Python cannot hold raises nothing, so
    that no row which somebody inserted stops those beside it: an integer of thousands of digits becomes infinite, and
    a document that is nested a thousand deep stays text.
    """
    if document is None:
        return None
    try:
        return from_json(document)
    except ValueError:  # nested deeper, or digits more, than this parser goes
        pass
    try:
        return json.loads(document, parse_int=_integer)
    except RecursionError:
        return document


def parse_object(document: str | None) -> dict[str, Any]:
    """The object in a JSONB column that was selected as text; {} for NULL and whatever is no object."""
    value = parse_json(document)
    return value if isinstance(value, dict) else {}


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # the interpreter's limit on digits
        return -math.inf if digits.startswith("-") else math.inf
