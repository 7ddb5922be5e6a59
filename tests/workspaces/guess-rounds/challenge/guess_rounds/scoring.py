def score_guess(prediction, ground_truth):
    return {"value": -abs(prediction["value"] - ground_truth["target"]), "success": True, "failed_reason": None}
