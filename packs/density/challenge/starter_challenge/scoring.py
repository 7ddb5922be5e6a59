"""How a quantile forecast is scored once its outcome is known."""

from __future__ import annotations

from typing import Any

# The answer's fields with their levels; `value` is the median.
LEVELS = {"q05": 0.05, "q25": 0.25, "value": 0.50, "q75": 0.75, "q95": 0.95}
# What each level stands for of the whole: from halfway to the level below it to halfway to the one above.
WEIGHTS = {"q05": 0.15, "q25": 0.225, "value": 0.25, "q75": 0.225, "q95": 0.15}


def pinball_loss(level: float, quantile: float, actual: float) -> float:
    """(actual - quantile) * level above the quantile, (quantile - actual) * (1 - level) below it.

    Source: Koenker and Bassett, Regression Quantiles, Econometrica 46 (1978).
    """
    return max(level * (actual - quantile), (level - 1) * (actual - quantile))


def score_prediction(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """The negative CRPS in basis points, so that more is better and 0 is perfect.

    CRPS = 2 * integral over all levels of the pinball loss, here the sum over the five levels, each weighted by what it
    stands for. Source: Gneiting and Ranjan, Comparing Density Forecasts, JBES 29 (2011), section 2. `pinball_loss` is
    the plain mean of the five losses.
    """
    actual = ground_truth["profit"] * 10_000
    losses = {field: pinball_loss(level, prediction[field], actual) for field, level in LEVELS.items()}
    crps = 2 * sum(WEIGHTS[field] * loss for field, loss in losses.items())
    return {
        "value": -crps,
        "crps": crps,
        "pinball_loss": sum(losses.values()) / len(losses),
        "inside_90": 1.0 if prediction["q05"] <= actual <= prediction["q95"] else 0.0,
        "actual_return": ground_truth["profit"],
    }
