from price_moves.tracker import TrackerBase


class Sleeper(TrackerBase):
    """Says hardly anything; leans on the last price that the input builder adds."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def predict(self, subject, resolve_horizon_seconds, step_seconds):
        self.calls += 1
        price = self.latest.get(subject, {}).get("last_price") or 0.0
        return {"expected_return": 0.0001 if int(price * 100) % 2 else -0.0001, "confidence": 0.4}
