"""What models send back: every shape that can be scored, and why the others cannot."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import InferenceOutput
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.services.predict.answers import (
    SHOWN_CHARACTERS,
    RefusedAnswerError,
    output_validator,
    read_answer,
    shorten,
)


class Quantiles(BaseModel):
    median: float
    upper: float = Field(default=1.0, alias="hi")


def read(answer: Any, output_type: type[BaseModel] = InferenceOutput, validator: Any = None) -> dict[str, Any]:
    return read_answer(answer, output_type, validator)


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ({"value": 0.5}, {"value": 0.5}),
        ({"value": "0.5"}, {"value": 0.5}),
        (
            {"value": 1, "note": "kept", "more": [1, {"x": None}]},
            {"value": 1.0, "note": "kept", "more": [1, {"x": None}]},
        ),
        (0.25, {"value": 0.25}),
        (3, {"value": 3.0}),
        (True, {"value": 1.0}),
        (pd.DataFrame({"value": [0.5], "n": [2]}), {"value": 0.5, "n": 2}),
    ],
)
def test_a_dict_a_number_or_a_frame_of_one_row_is_an_output(answer: Any, output: dict[str, Any]) -> None:
    assert read(answer) == output


def test_a_frame_of_several_rows_is_its_columns() -> None:
    class Series(BaseModel):
        value: list[float]

    assert read(pd.DataFrame({"value": [0.5, 0.25]}), Series) == {"value": [0.5, 0.25]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "neither a dict"),
        ("up", "neither a dict"),
        ([0.5], "neither a dict"),
        (pd.DataFrame({"value": []}), "neither a dict"),
        ({}, "none of the fields value"),
        ({"signal": 0.5}, "none of the fields value in {'signal': 0.5}"),
        ({"value": "up"}, "value: Input should be a valid number"),
        ({"value": None}, "value: Input should be a valid number"),
        ({"value": math.nan}, "answer.value is nan"),
        (math.inf, "answer.value is inf"),
        ({"value": 1, "x": {"y": [0, math.nan]}}, r"answer.x.y\[1\] is nan"),
        ({"value": 1, "x": "a\x00"}, "answer.x holds text"),
        ({"value": 1, "x\x00": 1}, "a key of answer holds text"),
        ({"value": 1, "x": {1, 2}, "y": object()}, "object"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_what_was_wrong(answer: Any, said: str) -> None:
    with pytest.raises(RefusedAnswerError, match=said):
        read(answer)


def test_missing_fields_are_named_and_aliases_are_known() -> None:
    with pytest.raises(RefusedAnswerError, match="median: Field required"):
        read({"hi": 2.0}, Quantiles)
    assert read({"median": 1.0, "hi": 2.0}, Quantiles) == {"median": 1.0, "hi": 2.0, "upper": 2.0}


def test_the_validator_may_change_or_refuse_an_output() -> None:
    assert read(0.5, validator=lambda output: {**output, "seen": True}) == {"value": 0.5, "seen": True}
    with pytest.raises(RefusedAnswerError, match=r"refused by the output validator: \{'value': 0.5\}"):
        read(0.5, validator=lambda output: None)
    with pytest.raises(RefusedAnswerError, match="ZeroDivisionError: division by zero"):
        read(0.5, validator=lambda output: {"value": 1 / 0})
    with pytest.raises(RefusedAnswerError, match=r"its answer\.value is nan"):
        read(0.5, validator=lambda output: {"value": math.nan})


def test_a_validator_that_is_not_there_is_found_at_start() -> None:
    assert output_validator(Settings()) is None
    with pytest.raises(ConfigurationError, match="no_such_module:check"):
        output_validator(Settings(inference_output_validator="no_such_module:check"))


ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["value", "a", "b\x00"]), ANSWERS) | ANSWERS)
def test_any_answer_is_either_storable_or_refused(answer: Any) -> None:
    try:
        output = read(answer)
    except RefusedAnswerError as refused:
        assert "\x00" not in str(refused)  # noqa: PT017 - most answers are refused, and all are looked at
        return
    written = json.dumps(output, allow_nan=False)
    assert "\\u0000" not in written
    assert isinstance(output["value"], float)


@given(st.text())
def test_what_is_shown_of_an_answer_is_short_and_storable(text: str) -> None:
    shown = shorten(text)
    assert len(shown) <= SHOWN_CHARACTERS + 40
    assert "\x00" not in shown
