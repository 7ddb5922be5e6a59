"""Turns its position around at every call."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase


class Restless(TrackerBase):
    """Pays spread and fees for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: dict[str, float] = {}

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer the opposite of the last answer for this subject."""
        self.positions[subject] = -self.positions.get(subject, 1.0)
        return {"signal": self.positions[subject]}
