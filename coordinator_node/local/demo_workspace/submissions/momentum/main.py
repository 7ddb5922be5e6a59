"""Follows the last half minute."""

from __future__ import annotations

import math

from tracker import TrackerBase

RECORDS = 20


class Momentum(TrackerBase):
    """What rose goes on rising."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer in the direction of the past return."""
        return {"value": math.copysign(1.0, self.past_return(subject, RECORDS))}
