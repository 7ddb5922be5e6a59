"""What following a model's signals would have earned, as a curve with its drawdown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from coordinator_node.backtest.judge import Judged
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.values import return_of, signal_of

BASIS_POINT = 1e-4


class Equity(NamedTuple):
    """One entry a scored prediction with a signal and a return, in the order of their outcomes.

    `earned` is sign(signal) * return, less `costs_bps` basis points for each unit by which the position (that sign)
    changed in its scope; `curve` is its running sum (nothing is reinvested), `drawdown` how far that is below its peak
    so far, 0 or less. All are fractions: 0.01 is 1 %. `places` are the entries' places among the predictions.
    """

    times: list[datetime]
    earned: Floats
    curve: Floats
    drawdown: Floats
    places: list[int]

    @property
    def net_mean_return(self) -> float:
        """The mean of `earned`; NaN where there is none."""
        return float(self.earned.mean()) if self.earned.size else float("nan")


def equity_of(judged: Sequence[Judged], costs_bps: float) -> Equity:
    """The curve of one model's predictions, which are in the order of their outcomes."""
    times: list[datetime] = []
    earned: list[float] = []
    places: list[int] = []
    held: dict[str, float] = {}
    for place, one in enumerate(judged):
        if one.record.status is not PredictionStatus.SCORED:
            continue
        signal, happened = signal_of(one.record.inference_output), return_of(one.result, one.truth)
        if signal is None or happened is None:
            continue
        position = float((signal > 0) - (signal < 0))
        traded = abs(position - held.get(one.record.scope_key, 0.0))
        held[one.record.scope_key] = position
        times.append(one.resolvable_at)
        earned.append(position * happened - costs_bps * BASIS_POINT * traded)
        places.append(place)
    gains = np.array(earned, dtype=np.float64)
    curve = np.cumsum(gains)
    peaks = np.maximum.accumulate(np.concatenate(([0.0], curve)))[1:]
    return Equity(times, gains, curve, curve - peaks, places)
