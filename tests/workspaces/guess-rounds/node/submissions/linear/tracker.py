class TrackerBase:
    def tick(self, data):
        pass

    def predict(self, features):
        raise NotImplementedError()
