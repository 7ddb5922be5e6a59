"""Buys once and holds."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase


class AlwaysBought(TrackerBase):
    """Believes that prices rise."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer a full position."""
        return {"signal": 1.0}
