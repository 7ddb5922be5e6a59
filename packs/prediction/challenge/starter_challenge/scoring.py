"""How a prediction is scored once its outcome is known."""

from __future__ import annotations

from typing import Any

# Scores are in units of a typical move's square, so that they read well; it changes no ranking.
TYPICAL_MOVE_BASIS_POINTS = 2.0


def score_prediction(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """By how much the prediction's squared error is smaller than that of predicting no move.

    With p predicted and a actual, both in basis points: (a^2 - (a - p)^2) / 2^2. Above 0 is better than saying
    nothing; the expected score is greatest for the honest expectation of a, so that exaggerating costs.
    """
    predicted = prediction["value"]
    actual = ground_truth["profit"] * 10_000
    value = (actual**2 - (actual - predicted) ** 2) / TYPICAL_MOVE_BASIS_POINTS**2
    return {"value": value, "actual_return": ground_truth["profit"]}
