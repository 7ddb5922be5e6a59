from tracker import TrackerBase


class Drifter(TrackerBase):
    def predict(self, subject, resolve_horizon_seconds, step_seconds):
        candles = self.data.get("candles_1m", [])
        if len(candles) < 2:
            return 0.0
        return 10_000 * (candles[-1]["close"] / candles[-2]["close"] - 1.0)
