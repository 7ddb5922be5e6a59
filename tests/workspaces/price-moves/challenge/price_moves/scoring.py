"""How a move is scored: the return earned by following it, weighted by the confidence."""

from typing import Any


def score_prediction(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    expected = prediction.get("expected_return")
    actual = ground_truth.get("actual_return")
    if expected is None or actual is None:
        return {"value": 0.0, "success": False, "failed_reason": "nothing to compare"}
    if not prediction["model_id"] or not prediction["prediction_id"]:
        return {"value": 0.0, "success": False, "failed_reason": "whose is it?"}
    side = (expected > 0) - (expected < 0)
    return {
        "value": 10_000 * side * actual * prediction["confidence"],
        "actual_return": actual,
        "squared_error": (expected - actual) ** 2,
        "success": True,
        "failed_reason": None,
    }
