"""What following a model's signals would have earned, as a curve with its drawdown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator_node.backtest.numbers import Numbers
from coordinator_node.metrics.arrays import Floats

BASIS_POINT = 1e-4


class Equity(NamedTuple):
    """One entry a scored prediction with a signal and a return, in the order of their outcomes.

    `earned` is sign(signal) * return, less `costs_bps` basis points for each unit by which the position (that sign)
    changed in its scope; `curve` is its running sum (nothing is reinvested), `drawdown` how far that is below its peak
    so far, 0 or less. All are fractions: 0.01 is 1 %. `places` are the entries' places among the predictions.
    """

    places: NDArray[np.intp]
    earned: Floats
    curve: Floats
    drawdown: Floats

    @property
    def net_mean_return(self) -> float:
        """The mean of `earned`; NaN where there is none."""
        return float(self.earned.mean()) if self.earned.size else float("nan")


def equity_of(numbers: Numbers, costs_bps: float) -> Equity:
    """The curve of one model's predictions, which are in the order of their outcomes."""
    places = np.flatnonzero(numbers.scored & ~np.isnan(numbers.signals) & ~np.isnan(numbers.returns))
    positions = np.sign(numbers.signals[places])
    costs = costs_bps * BASIS_POINT * _traded(positions, numbers.scopes[places])
    earned = positions * numbers.returns[places] - costs
    curve = np.cumsum(earned)
    peaks = np.maximum.accumulate(np.concatenate(([0.0], curve)))[1:]
    return Equity(places, earned, curve, curve - peaks)


def _traded(positions: Floats, scopes: NDArray[np.intp]) -> Floats:
    """By how much each position differs from the one before it in its scope; the first from none."""
    order = np.argsort(scopes, kind="stable")
    own, where = positions[order], scopes[order]
    before = np.concatenate(([0.0], own[:-1]))
    before[np.flatnonzero(np.diff(where, prepend=-1))] = 0.0
    traded = np.empty_like(positions)
    traded[order] = np.abs(own - before)
    return traded
