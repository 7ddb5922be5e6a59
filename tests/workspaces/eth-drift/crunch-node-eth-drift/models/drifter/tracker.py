class TrackerBase:
    def __init__(self):
        self.data = {}

    def tick(self, data):
        self.data = data

    def predict(self, subject, resolve_horizon_seconds, step_seconds):
        raise NotImplementedError()
