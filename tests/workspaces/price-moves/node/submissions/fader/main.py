from price_moves.tracker import TrackerBase


class Fader(TrackerBase):
    """What rose falls back."""

    def predict(self, subject, resolve_horizon_seconds, step_seconds, **kwargs):
        closes = self.closes(subject)
        if len(closes) < 3:
            return {"expected_return": 0.0}
        return {"expected_return": closes[-3] / closes[-1] - 1.0, "confidence": 0.6}
