"""What the database makes of a JSON document that it keeps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


def as_stored(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its keys in the order in which JSONB gives them back: shorter ones first, then by bytes.

    The signal of an output without a known field is its first number, so the order counts.
    """
    return {key: document[key] for key in _order(tuple(document))} if len(document) > 1 else document


def stored_tree(value: Any) -> Any:
    """A JSON value with the keys of all its objects in that order."""
    if isinstance(value, dict):
        return as_stored({key: stored_tree(item) for key, item in value.items()})
    return [stored_tree(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=1000)
def _order(keys: tuple[str, ...]) -> list[str]:
    return sorted(keys, key=lambda key: (len(encoded := key.encode()), encoded))
