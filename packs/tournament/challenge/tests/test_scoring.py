"""The score means what the README says."""

import pytest

from starter_challenge.scoring import score_prediction


def score(predicted: float, target: float) -> float:
    return score_prediction({"value": predicted}, {"target": target})["value"]


def test_saying_nothing_scores_nothing():
    assert score(0.0, 1.5) == 0.0


@pytest.mark.parametrize("target", [-2.0, 0.5])
def test_the_target_itself_scores_best(target):
    assert score(target, target) == pytest.approx(target**2)
    assert score(target, target) > max(score(target / 2, target), score(target * 1.5, target))


def test_the_wrong_side_costs():
    assert score(1.0, -1.0) == pytest.approx(-3.0)
