"""What a position earned, after what it cost to get there."""

from __future__ import annotations

from typing import Any

# Of the traded value, in basis points: half the spread is lost with every trade, the fee is paid for it.
SPREAD_BASIS_POINTS = 0.1
FEE_BASIS_POINTS = 0.02
COST_BASIS_POINTS = SPREAD_BASIS_POINTS / 2 + FEE_BASIS_POINTS


def score_prediction(prediction: dict[str, Any], ground_truth: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The profit of one interval in basis points of a full position.

    With s the position that the model asks for, h the one it held, and a the return until the next call:

        profit = s a - (spread / 2 + fee) |s - h|

    `state` is the model's own, kept from one prediction to the next, also when the node starts anew: it holds the
    position in each subject. A prediction that failed or is missing leaves the position as it was, and earns nothing.
    """
    subject = ground_truth["subject"]
    held = state.get(subject, 0.0)
    position = prediction["signal"]
    traded = abs(position - held)
    cost = COST_BASIS_POINTS * traded
    gross = position * ground_truth["profit"] * 10_000
    state[subject] = position
    return {
        "value": gross - cost,
        "gross_profit": gross,
        "cost": cost,
        "traded": traded,
        "position": position,
        "actual_return": ground_truth["profit"],
    }
