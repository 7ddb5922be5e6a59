"""What may be stored of what operators' code returned."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, text

from coordinator_node.entities.json_values import (
    UnstorableError,
    fault_in,
    finite_or_null,
    reason_of,
    storable,
    storable_text,
)


class Colour(Enum):
    RED = "red"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    value: float = 0.0


def test_what_has_a_plain_form_is_stored_in_it() -> None:
    given_value = {
        "numpy": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "array": np.array([1.0, 2.0]),
        "pair": (1, "two"),
        "colour": Colour.RED,
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "nested": Open(value=1, extra=[None]),
    }
    assert storable(given_value, "score") == {
        "numpy": 0.5,
        "count": 3,
        "flag": True,
        "array": [1.0, 2.0],
        "pair": [1, "two"],
        "colour": "red",
        "at": "2026-01-02T00:00:00Z",
        "nested": {"value": 1.0, "extra": [None]},
    }


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (Open(value=1, hidden=math.inf), r"score.hidden is inf"),
        ({"a": [1, {"b": math.nan}]}, r"score.a\[1\].b is nan"),
        ({"a": "x\x00"}, r"score.a holds text"),
        ({"a\x00": 1}, r"a key of score holds text"),
        ({"a": 10**400}, r"score.a is larger than any float"),
        ({"a": object()}, r"a object is no JSON value"),
        ({"a": b"\xff"}, r"utf-8"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(value: Any, fault: str) -> None:
    with pytest.raises(UnstorableError, match=fault):
        storable(value, "score")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_postgres_stores_what_has_no_fault(engine: Engine) -> None:
    @settings(max_examples=60)
    @given(json_values)
    def check(value: Any) -> None:
        if fault_in(value, "value") is None:
            written = json.dumps(value, allow_nan=False)
            with engine.connect() as connection:
                read = connection.execute(text("SELECT CAST(:value AS jsonb)"), {"value": written}).scalar_one()
            # A number beyond 2^53 comes back as the integer that its decimal text is.
            assert json.loads(json.dumps(read), parse_int=float) == json.loads(written, parse_int=float)

    check()


@given(json_values)
def test_without_infinities_only_text_is_left_to_refuse(value: Any) -> None:
    fault = fault_in(finite_or_null(value), "value")
    assert fault is None or "holds text" in fault


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_becomes_storable(given_text: str) -> None:
    kept = storable_text(given_text, limit=10)
    assert len(kept) <= 10
    assert fault_in(kept, "text") is None


def test_a_reason_is_one_line() -> None:
    assert reason_of(ValueError("two\nlines\x00")) == "ValueError: two lines\ufffd"
    assert reason_of(KeyError()) == "KeyError"
