"""What following a model would have brought: arrays of one model's observations in time order, one number out.

Positions where an array that a measure reads is not finite are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator_node.metrics.arrays import Floats, finite_pairs, without_gaps

MIN_AVERAGED = 1
"""Fewest observations of `mean_return` and `hit_rate`: the mean of one is defined."""

MIN_DRAWDOWN = 1
"""Fewest scores of `max_drawdown`: the curve starts from 0, so one loss is a drawdown."""

MIN_DEVIATION = 2
"""Fewest observations of `sortino_ratio`."""

MIN_CHANGES = 1
"""Fewest changes of a signal of `turnover`, so two observations of one scope."""


def signed_returns(signals: Floats, returns: Floats) -> Floats:
    """sign(signal) * return of each observation that has both; sign(0) is 0."""
    signals, returns = finite_pairs(signals, returns)
    return np.asarray(np.sign(signals) * returns, dtype=np.float64)


def mean_return(signals: Floats, returns: Floats) -> float | None:
    """Mean of sign(signal) * return, as a fraction; None without an observation."""
    earned = signed_returns(signals, returns)
    return None if earned.size < MIN_AVERAGED else float(earned.mean())


def hit_rate(signals: Floats, returns: Floats) -> float | None:
    """Share (0 to 1) of observations whose signal has the sign of the return; zeros on either side are left out."""
    earned = signed_returns(signals, returns)
    decided = earned[earned != 0.0]
    return None if decided.size < MIN_AVERAGED else float(np.mean(decided > 0.0))


def hit_rates(signals: Floats, returns: Floats) -> list[float | None]:
    """`hit_rate` of each row of two matrices; NaN where there is no value."""
    if not without_gaps(signals, returns):
        return [hit_rate(*pair) for pair in zip(signals, returns, strict=True)]
    earned = np.sign(signals) * returns
    hits, decided = np.count_nonzero(earned > 0.0, axis=1), np.count_nonzero(earned, axis=1)
    return [float(hit / count) if count >= MIN_AVERAGED else None for hit, count in zip(hits, decided, strict=True)]


def sortino_ratio(signals: Floats, returns: Floats) -> float | None:
    """Mean of r over its downside deviation sqrt(mean(min(r, 0)^2)), where r = sign(signal) * return.

    After Sortino and Price (1994) with a target of 0; not annualised. None with fewer than MIN_DEVIATION observations
    or without a loss.
    """
    earned = signed_returns(signals, returns)
    if earned.size < MIN_DEVIATION:
        return None
    downside = float(np.sqrt(np.mean(np.minimum(earned, 0.0) ** 2)))
    return None if downside == 0.0 else float(earned.mean()) / downside


def max_drawdown(scores: Floats) -> float | None:
    """The worst fall of the cumulative score from its peak so far, the curve starting from 0; 0 or less, in scores."""
    scores = scores[np.isfinite(scores)]
    if scores.size < MIN_DRAWDOWN:
        return None
    curve = np.concatenate(([0.0], np.cumsum(scores)))
    return float(np.min(curve - np.maximum.accumulate(curve)))


def max_drawdowns(scores: Floats) -> list[float | None]:
    """`max_drawdown` of each row of a matrix; NaN where there is no score."""
    models, entries = scores.shape
    if entries < MIN_DRAWDOWN or not without_gaps(scores):
        return [max_drawdown(row) for row in scores]
    curves = np.zeros((models, entries + 1))
    np.cumsum(scores, axis=1, out=curves[:, 1:])
    falls = curves - np.maximum.accumulate(curves, axis=1)
    return [float(fall) for fall in falls.min(axis=1)]


def turnover(signals: Floats, scopes: NDArray[np.intp]) -> float | None:
    """Mean absolute change of the signal between two observations of the same scope in time order, over all scopes.

    `scopes` numbers each observation's scope. A constant signal has 0. None with fewer than MIN_CHANGES changes.
    """
    present = np.isfinite(signals)
    signals, scopes = signals[present], scopes[present]
    order = np.argsort(scopes, kind="stable")
    same_scope = np.diff(scopes[order]) == 0
    changes = np.abs(np.diff(signals[order]))[same_scope]
    return None if changes.size < MIN_CHANGES else float(changes.mean())
