"""Bets against the newest move."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase

RECORDS = 20


class Fading(TrackerBase):
    """What rose comes back, a little."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer against a part of the past return."""
        return {"value": -0.2 * self.past_return(subject, RECORDS)}
