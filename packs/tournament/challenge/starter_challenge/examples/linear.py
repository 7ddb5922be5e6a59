"""Has found most of what is to be found."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase


class Linear(TrackerBase):
    """A weighted sum of two features."""

    def predict(self, features: dict[str, float]) -> dict[str, float]:
        """Answer the sum."""
        return {"value": 0.5 * features["x1"] - 0.3 * features["x2"]}
