"""The score means what the README says."""

import pytest

from starter_challenge.scoring import score_prediction


def score(predicted: float, actual_basis_points: float) -> float:
    return score_prediction({"value": predicted}, {"profit": actual_basis_points / 10_000})["value"]


def test_saying_nothing_scores_nothing():
    assert score(0.0, 12.0) == 0.0


@pytest.mark.parametrize("actual", [-8.0, 3.0])
def test_the_outcome_itself_scores_best(actual):
    assert score(actual, actual) == pytest.approx(actual**2 / 4)
    assert score(actual, actual) > max(score(actual / 2, actual), score(actual * 1.5, actual))


def test_the_wrong_side_costs():
    assert score(5.0, -5.0) == pytest.approx(-18.75)


def test_the_actual_return_is_kept_for_the_metrics():
    assert score_prediction({"value": 1.0}, {"profit": 0.002})["actual_return"] == 0.002
