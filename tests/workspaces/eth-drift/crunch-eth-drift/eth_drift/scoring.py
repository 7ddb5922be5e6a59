"""How a drift is scored: by how far the forecast was off."""


def score_drift(prediction, ground_truth):
    loss = abs(prediction["value"] - ground_truth["drift_bps"])
    return {"value": -loss, "loss": loss, "actual_return": ground_truth["profit"]}
