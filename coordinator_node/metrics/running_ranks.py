"""Ranks of a window that moves on: what has left and what has come changes them, and nothing is sorted again."""

from __future__ import annotations

import numpy as np

from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.correlation import average_ranks

MOST_MOVED = 64
"""Beyond so many values that left or came, sorting anew is cheaper."""


class RunningRanks:
    """`average_ranks` of a stretch of a series, to the last digit: ranks are multiples of 0.5, so sums are exact.

    The series may grow at its end; a value that it has once does not change.
    """

    def __init__(self) -> None:
        self._first = 0
        self._values: Floats = np.empty(0)
        self._ranks: Floats = np.empty(0)

    def of(self, values: Floats, first: int) -> Floats:
        """The ranks of `values`, which begin at place `first` of the series; NaN has none and stays NaN.

        Whoever asks must not change them.
        """
        left = first - self._first
        kept = self._values.size - left
        come = values.size - kept
        if min(left, kept, come) >= 0 and left + come <= MOST_MOVED:
            self._ranks = _moved(self._ranks[left:], self._values[:left], values)
        else:
            self._ranks = average_ranks(values)
        # A copy, so that a window's arrays are not kept alive by a part of them.
        self._first, self._values = first, values.copy()
        return self._ranks


def _moved(ranks: Floats, gone: Floats, values: Floats) -> Floats:
    """The ranks of `values`, the first of which had `ranks` among themselves and the values that are gone."""
    there = ranks.size
    ranks = np.concatenate((ranks, np.full(values.size - there, np.nan)))
    for value in gone:
        ranks[:there] -= _steps_above(values[:there], value)
    for place in range(there, values.size):
        value, before = values[place], values[:place]
        ranks[:place] += _steps_above(before, value)
        if not np.isnan(value):
            ranks[place] = 1.0 + np.count_nonzero(before < value) + np.count_nonzero(before == value) / 2
    return ranks


def _steps_above(values: Floats, value: float) -> Floats:
    """By how much each of the values is ranked higher because `value` is there too; 0 for NaN."""
    steps: Floats = (values > value) + (values == value) * 0.5
    return steps
