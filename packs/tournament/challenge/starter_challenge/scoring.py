"""How a prediction is scored once its row's target is known."""

from __future__ import annotations

from typing import Any


def score_prediction(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """By how much the prediction's squared error is smaller than that of saying 0: y^2 - (y - p)^2.

    Above 0 is better than saying 0; the expected score is greatest for the honest expectation of y.
    """
    target = ground_truth["target"]
    value = target**2 - (target - prediction["value"]) ** 2
    return {"value": value, "actual_return": target}
