"""Which number of an output is the signal, and which number of a score the return."""

import math

import numpy as np
import pytest

from coordinator_node.metrics.values import as_number, return_of, score_of, signal_of


@pytest.mark.parametrize(
    ("output", "signal"),
    [
        ({"value": 1, "expected_return": 2.0}, 1.0),
        ({"prediction": 4.0, "signal": 3.0, "expected_return": 2.0}, 2.0),
        ({"prediction": 4.0, "signal": 3.0}, 3.0),
        ({"other": 5.0, "prediction": 4.0}, 4.0),
        ({"label": "up", "sure": True, "probability": 0.7, "size": 2.0}, 0.7),
        ({"value": "up", "probability": 0.7}, 0.7),
        ({"value": True, "probability": 0.7}, 0.7),
        ({"value": None, "prediction": 0.3}, 0.3),
        ({"value": np.float32(0.5)}, 0.5),
        ({"value": np.int64(2)}, 2.0),
    ],
)
def test_signal(output, signal):
    assert signal_of(output) == signal


@pytest.mark.parametrize(
    "output",
    [
        {},
        {"label": "up", "sure": True},
        {"value": None, "horizon": 60},
        {"value": math.nan, "horizon": 60},
        {"value": math.inf, "prediction": 1.0},
        {"value": 10**400},
    ],
)
def test_a_missing_signal_is_not_taken_from_a_field_that_means_something_else(output):
    assert signal_of(output) is None


@pytest.mark.parametrize(
    ("result", "truth", "expected"),
    [
        ({"actual_return": 0.1, "profit": 0.2}, {"profit": 0.3}, 0.1),
        ({"profit": 0.2}, {"actual_return": 0.3}, 0.2),
        ({"value": 1.0}, {"actual_return": 0.3, "profit": 0.4}, 0.3),
        ({"value": 1.0}, {"profit": 0.4}, 0.4),
        ({"profit": math.nan}, {"profit": 0.4}, 0.4),
        ({"profit": True}, None, None),
        ({}, [{"profit": 0.4}], None),
    ],
)
def test_return(result, truth, expected):
    assert return_of(result, truth) == expected


def test_score_is_the_results_value():
    assert score_of({"value": -2}) == -2.0
    assert score_of({"value": math.nan}) is None
    assert score_of({"profit": 1.0}) is None


@pytest.mark.parametrize("value", [True, np.True_, "1", None, math.nan, -math.inf, [1.0], 10**400])
def test_what_is_no_finite_number(value):
    assert as_number(value) is None
