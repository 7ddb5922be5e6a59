"""Is sure of itself, and wrong most of the time."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase


class TooNarrow(TrackerBase):
    """The same thin band at every moment."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer next to nothing in both directions."""
        return {"q05": -0.1, "q25": -0.05, "value": 0.0, "q75": 0.05, "q95": 0.1}
