"""Expects moves as large as the newest ones were."""

from __future__ import annotations

import math
from itertools import pairwise

from starter_challenge.tracker import TrackerBase

RECORDS = 60
# Quantiles of the standard normal distribution.
NORMAL = {"q05": -1.645, "q25": -0.674, "value": 0.0, "q75": 0.674, "q95": 1.645}


class RecentVolatility(TrackerBase):
    """A normal distribution whose width is that of the past, grown with the square root of time."""

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer the quantiles of that distribution."""
        closes = self.closes.get(subject, [])[-RECORDS:]
        moves = [math.log(after / before) * 10_000 for before, after in pairwise(closes)]
        one_record = math.sqrt(sum(move * move for move in moves) / len(moves)) if moves else 0.5
        width = min(one_record * math.sqrt(resolve_horizon_seconds), 500.0)
        return {field: quantile * width for field, quantile in NORMAL.items()}
