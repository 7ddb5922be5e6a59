"""Follows the newest move, and trades little."""

from __future__ import annotations

from starter_challenge.tracker import TrackerBase

RECORDS = 20
# From this past return on, in basis points, the position is a full one.
FULL_AT = 5.0


class PatientMomentum(TrackerBase):
    """Holds in the direction of the past return, more the larger it was."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer a share of a full position."""
        return {"signal": max(-1.0, min(1.0, self.past_return(subject, RECORDS) / FULL_AT))}
