"""The score means what the README says."""

import pytest
from pydantic import ValidationError

from starter_challenge.config import CrunchConfig
from starter_challenge.scoring import COST_BASIS_POINTS, score_prediction


def score(signal, actual_basis_points, state, subject="BTC"):
    truth = {"profit": actual_basis_points / 10_000, "subject": subject}
    return score_prediction({"signal": signal}, truth, state)["value"]


def test_a_position_earns_what_the_price_does_less_the_trade():
    assert score(1.0, 4.0, {}) == pytest.approx(4.0 - COST_BASIS_POINTS)
    assert score(-0.5, 4.0, {}) == pytest.approx(-2.0 - 0.5 * COST_BASIS_POINTS)


def test_holding_costs_nothing_and_turning_around_twice_as_much():
    state = {}
    score(1.0, 0.0, state)
    assert score(1.0, 3.0, state) == pytest.approx(3.0)
    assert score(-1.0, 0.0, state) == pytest.approx(-2 * COST_BASIS_POINTS)


def test_each_subject_has_its_own_position():
    state = {}
    score(1.0, 0.0, state)
    assert score(1.0, 0.0, state, subject="ETH") == pytest.approx(-COST_BASIS_POINTS)
    assert state == {"BTC": 1.0, "ETH": 1.0}


def test_more_than_a_full_position_is_refused():
    with pytest.raises(ValidationError):
        CrunchConfig().output_type.model_validate({"signal": 1.5})
