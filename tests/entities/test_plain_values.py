"""What passes for plain is what conversion and a look at every value would leave as it is."""

from __future__ import annotations

import enum
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator_node.entities.json_values import fault_in, is_plain, to_json


class Name(enum.StrEnum):
    VALUE = "value"


class Number(float):
    """A float that says other things."""


VALUES = st.one_of(
    st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3), st.lists(st.integers(), max_size=1)
)


@given(st.dictionaries(st.text(max_size=3) | st.integers(), VALUES, max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_plain_document_is_stored_as_it_is(document: dict[Any, Any]) -> None:
    flat = all(
        isinstance(key, str) and key.isascii() and key.isprintable() and isinstance(item, float | int | None)
        for key, item in document.items()
    )
    finite = all(math.isfinite(item) for item in document.values() if isinstance(item, float))
    small = all(abs(item) < 2**53 for item in document.values() if isinstance(item, int))
    assert is_plain(document) == (flat and finite and small)
    if is_plain(document):
        assert to_json(document) == document
        assert fault_in(document, "it") is None


@pytest.mark.parametrize("document", [{Name.VALUE: 1.0}, {"value": Number(1)}, {"a": 1.0, "b\n": 1.0}, [1.0], None])
def test_what_only_looks_plain_is_not(document: Any) -> None:
    assert not is_plain(document)
