"""Bets against the last half minute."""

from __future__ import annotations

import math

from tracker import TrackerBase

RECORDS = 20


class Fading(TrackerBase):
    """What rose comes back."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer against the direction of the past return."""
        return {"value": math.copysign(1.0, -self.past_return(subject, RECORDS))}
