"""Rules nothing out."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase


class TooWide(TrackerBase):
    """The same broad band at every moment."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer a lot in both directions."""
        return {"q05": -30.0, "q25": -12.0, "value": 0.0, "q75": 12.0, "q95": 30.0}
