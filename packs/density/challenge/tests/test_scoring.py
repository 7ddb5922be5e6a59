"""The score means what the README says."""

import pytest
from pydantic import ValidationError

from starter_challenge.config import CrunchConfig
from starter_challenge.scoring import LEVELS, WEIGHTS, pinball_loss, score_prediction

NORMAL = {"q05": -1.645, "q25": -0.674, "value": 0.0, "q75": 0.674, "q95": 1.645}


def score(quantiles: dict[str, float], actual_basis_points: float) -> dict[str, float]:
    return score_prediction(quantiles, {"profit": actual_basis_points / 10_000})


def test_the_weights_are_the_whole():
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    assert WEIGHTS.keys() == LEVELS.keys()


def test_the_pinball_loss_is_the_definitions():
    assert pinball_loss(0.05, -2.0, 3.0) == pytest.approx(0.25)
    assert pinball_loss(0.05, 2.0, -3.0) == pytest.approx(4.75)


def test_certainty_that_comes_true_is_perfect():
    assert score(dict.fromkeys(LEVELS, 2.0), 2.0)["value"] == pytest.approx(0.0)


def test_it_is_near_the_crps_of_the_normal_distribution():
    # CRPS of a standard normal forecast for the outcome 0 is (sqrt(2) - 1) / sqrt(pi); five levels come near it.
    assert score(NORMAL, 0.0)["crps"] == pytest.approx(0.2337, abs=0.04)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_too_narrow_and_too_wide_cost(factor):
    outcomes = [-1.6, -1.0, -0.7, -0.4, -0.1, 0.1, 0.4, 0.7, 1.0, 1.6]
    other = {field: quantile * factor for field, quantile in NORMAL.items()}
    assert sum(score(other, a)["value"] for a in outcomes) < sum(score(NORMAL, a)["value"] for a in outcomes)


def test_falling_quantiles_are_refused():
    with pytest.raises(ValidationError, match="must not fall"):
        CrunchConfig().output_type.model_validate({**NORMAL, "q75": -1.0})
