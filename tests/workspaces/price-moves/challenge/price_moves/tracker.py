"""The base class of every model."""


class TrackerBase:
    """Keeps the latest data of each symbol."""

    def __init__(self):
        self.latest = {}

    def tick(self, data):
        self.latest[data["symbol"]] = data

    def predict(self, subject, resolve_horizon_seconds, step_seconds):
        raise NotImplementedError

    def closes(self, subject):
        return [candle["close"] for candle in self.latest.get(subject, {}).get("candles_1m", [])]
