"""JSON documents as text, for statements whose rows are many: parsing is most of what reading them costs."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

encode_json = json.JSONEncoder(allow_nan=False).encode
"""A document's text. One encoder, because `json.dumps` makes a new one for every call that refuses NaN."""


def parse_json(document: str | None) -> Any:
    """The value of a JSONB column that was selected as text; None for NULL.

    What `json.loads` gives, in about a tenth of the time.
    """
    if document is None:
        return None
    try:
        return from_json(document)
    except ValueError:  # nested deeper than this parser goes
        return json.loads(document)


def parse_object(document: str | None) -> dict[str, Any]:
    """The object in a JSONB column that was selected as text; {} for NULL and whatever is no object."""
    value = parse_json(document)
    return value if isinstance(value, dict) else {}
