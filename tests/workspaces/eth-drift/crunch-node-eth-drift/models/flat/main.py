from tracker import TrackerBase


class Flat(TrackerBase):
    """Nothing ever happens."""

    def predict(self, subject, resolve_horizon_seconds, step_seconds):
        return {"value": 0.0, "resolve_horizon_seconds": resolve_horizon_seconds}
