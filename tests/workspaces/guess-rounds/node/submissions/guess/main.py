from tracker import TrackerBase


class Guess(TrackerBase):
    def predict(self, features):
        return {"value": 1.0}
