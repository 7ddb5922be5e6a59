"""Looks at one feature only."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase


class OneFeature(TrackerBase):
    """A part of the first feature."""

    def predict(self, features: dict[str, float]) -> dict[str, float]:
        """Answer that part."""
        return {"value": 0.3 * features["x1"]}
