"""A model beside the others: what it adds to them, and what it says that they do not."""

from __future__ import annotations

import numpy as np

from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.correlation import MIN_CORRELATED, information_coefficient

_DIGITS = 12
"""Digits that count when computed signals are ranked: what differs only by rounding must stay a tie."""


def leave_one_out_means(signals: Floats, weights: Floats | None = None) -> Floats:
    """For each model and entry, the weighted mean signal of the other models there.

    Args:
        signals: (m, n), NaN where a model has no entry.
        weights: (m, n), not negative; None is equal weights. They are renormalised over the models present.

    Returns:
        (m, n), NaN where no other model of positive weight is present.
    """
    present = np.isfinite(signals)
    weighed = present.astype(np.float64) if weights is None else np.where(present, weights, 0.0)
    totals = _sums_without(weighed)
    sums = _sums_without(np.where(present, signals, 0.0) * weighed)
    means: Floats = np.divide(sums, totals, out=np.full(signals.shape, np.nan), where=totals > 0.0)
    return means


def feature_neutral_correlation(signals: Floats, others: Floats, returns: Floats) -> float | None:
    """`fnc`: IC of the signal made orthogonal to the others' mean signal.

    The residual of the least-squares fit s = a + b * m, where m is the others' mean, is orthogonal to m and to a
    constant; its Spearman correlation with the returns is the measure. None with fewer than MIN_CORRELATED entries,
    where m does not vary, or where nothing is left of the signal.
    """
    everywhere = np.isfinite(signals) & np.isfinite(others) & np.isfinite(returns)
    signals, others, returns = signals[everywhere], others[everywhere], returns[everywhere]
    if signals.size < MIN_CORRELATED or np.ptp(_rounded(others)) == 0.0:
        return None
    scale = float(np.max(np.abs(signals)))
    centred = others - others.mean()
    slope = (centred @ signals) / (centred @ centred)
    residual = signals - signals.mean() - slope * centred
    return information_coefficient(_rounded(residual, scale), returns)


def contribution(ensemble: Floats, without: Floats, returns: Floats) -> float | None:
    """IC of the ensemble minus IC of the ensemble without the model, both over the entries that all three have."""
    everywhere = np.isfinite(ensemble) & np.isfinite(without) & np.isfinite(returns)
    returns = returns[everywhere]
    with_model = information_coefficient(_rounded(ensemble[everywhere]), returns)
    without_model = information_coefficient(_rounded(without[everywhere]), returns)
    return None if with_model is None or without_model is None else with_model - without_model


def _sums_without(values: Floats) -> Floats:
    """For each row, the column sums of all other rows.

    The rows before and after are added up; subtracting a row from the whole would leave rounding behind.
    """
    before = np.zeros_like(values)
    after = np.zeros_like(values)
    np.cumsum(values[:-1], axis=0, out=before[1:])
    after[:-1] = np.cumsum(values[:0:-1], axis=0)[::-1]
    return before + after


def _rounded(values: Floats, scale: float | None = None) -> Floats:
    """The values to _DIGITS digits of `scale`, by default of their own largest magnitude."""
    largest = float(np.max(np.abs(values), initial=0.0)) if scale is None else scale
    return values if largest == 0.0 else np.round(values / largest, _DIGITS)
