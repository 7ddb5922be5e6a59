from price_moves.tracker import TrackerBase


class Follower(TrackerBase):
    """What rose goes on rising."""

    def predict(self, subject, resolve_horizon_seconds, step_seconds):
        closes = self.closes(subject)
        if len(closes) < 6:
            return {"expected_return": 0.0, "confidence": 0.1}
        return {"expected_return": closes[-1] / closes[-6] - 1.0, "confidence": 0.8, "note": "follow"}
