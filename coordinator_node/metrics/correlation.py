"""Rank correlations: of a signal with what happened, and of models with each other.

Arrays hold one value an observation. All return None (NaN in matrices) where there are too few observations or one
side does not vary.
"""

from __future__ import annotations

import numpy as np

from coordinator_node.metrics.arrays import Floats, finite_pairs

MIN_CORRELATED = 3
"""Fewest observations of a correlation: two points always correlate perfectly."""

MIN_SUB_WINDOW = 10
"""Fewest observations of one sub-window of `ic_sharpe`."""

MIN_SUB_WINDOWS = 3
"""Fewest sub-windows of `ic_sharpe`."""

_LEAST_RANK_SPREAD = 0.1
"""Ranks are multiples of 0.5, so what they spread is 0 but for rounding, or at least of the order of 1."""

_ROUNDING = 1e-12
"""A spread this small beside the values it is taken from is rounding, so no variance."""


def average_ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the average of their ranks. NaN has no rank and stays NaN."""
    ranks = np.full(values.shape, np.nan)
    present = np.flatnonzero(~np.isnan(values))
    if present.size == 0:
        return ranks
    order = present[np.argsort(values[present], kind="stable")]
    ascending = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1])))
    sizes = np.diff(np.append(starts, ascending.size))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def spearman(left: Floats, right: Floats) -> float | None:
    """Spearman's rank correlation with average ranks for ties, over the positions where both are finite."""
    left, right = finite_pairs(left, right)
    if left.size < MIN_CORRELATED:
        return None
    first, second = average_ranks(left), average_ranks(right)
    first, second = first - first.mean(), second - second.mean()
    spread = np.sqrt((first @ first) * (second @ second))
    return None if spread < _LEAST_RANK_SPREAD else float(np.clip((first @ second) / spread, -1.0, 1.0))


def information_coefficient(signals: Floats, returns: Floats) -> float | None:
    """`ic`: Spearman's correlation of the signals with the actual returns."""
    return spearman(signals, returns)


def information_coefficient_sharpe(signals: Floats, returns: Floats) -> float | None:
    """`ic_sharpe`: mean over sample standard deviation of the ICs of sub-windows in time order.

    The observations are cut into as many runs of equal length (to within one) as hold at least MIN_SUB_WINDOW each. A
    run whose IC is undefined is left out. None with fewer than MIN_SUB_WINDOWS ICs, or where they do not vary.
    """
    signals, returns = finite_pairs(signals, returns)
    count = signals.size // MIN_SUB_WINDOW
    if count < MIN_SUB_WINDOWS:
        return None
    size, longer = divmod(signals.size, count)
    cut = longer * (size + 1)
    ics = np.concatenate(
        [
            _row_spearman(signals[:cut].reshape(longer, size + 1), returns[:cut].reshape(longer, size + 1)),
            _row_spearman(signals[cut:].reshape(count - longer, size), returns[cut:].reshape(count - longer, size)),
        ]
    )
    defined = ics[np.isfinite(ics)]
    if defined.size < MIN_SUB_WINDOWS:
        return None
    deviation = float(np.std(defined, ddof=1))
    return None if deviation <= _ROUNDING else float(np.mean(defined)) / deviation


def rank_correlations(left: Floats, right: Floats) -> Floats:
    """Pearson's correlation of each row of `left` with each row of `right`, over the columns that both have.

    Args:
        left: (a, n) ranks, each row's taken over its own window; NaN where the row has no entry.
        right: (b, n) likewise.

    Returns:
        (a, b), NaN where fewer than MIN_CORRELATED columns are common or a row does not vary over them.
    """
    x, x_present = _centred(left)
    y, y_present = _centred(right)
    common = x_present @ y_present.T
    x_sum, y_sum = x @ y_present.T, x_present @ y.T
    x_squares, y_squares = common * (x**2 @ y_present.T), common * (x_present @ (y**2).T)
    x_spread, y_spread = x_squares - x_sum**2, y_squares - y_sum**2
    covariance = common * (x @ y.T) - x_sum * y_sum
    defined = (common >= MIN_CORRELATED) & (x_spread > _ROUNDING * x_squares) & (y_spread > _ROUNDING * y_squares)
    correlations = np.full(common.shape, np.nan)
    np.divide(covariance, np.sqrt(np.where(defined, x_spread * y_spread, 1.0)), out=correlations, where=defined)
    bounded: Floats = np.clip(correlations, -1.0, 1.0)
    return bounded


def _row_spearman(left: Floats, right: Floats) -> Floats:
    """`spearman` of each row of two matrices of finite values; NaN where it is undefined."""
    first, second = _short_row_ranks(left), _short_row_ranks(right)
    first -= first.mean(axis=1, keepdims=True)
    second -= second.mean(axis=1, keepdims=True)
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    correlations = np.full(len(left), np.nan)
    np.divide((first * second).sum(axis=1), spread, out=correlations, where=spread >= _LEAST_RANK_SPREAD)
    return correlations


def _short_row_ranks(values: Floats) -> Floats:
    """Average ranks within each row, by comparing all pairs of it: for rows of a sub-window's length."""
    ones, others = values[:, :, np.newaxis], values[:, np.newaxis, :]
    ranks: Floats = ((others < ones).sum(axis=2) + (others <= ones).sum(axis=2) + 1) / 2
    return ranks


def _centred(ranks: Floats) -> tuple[Floats, Floats]:
    """Each row less its mean, 0 where it has no entry; and 1.0 where it has one.

    Subtracting a constant changes no correlation; it keeps the sums of squares small enough to be exact.
    """
    present = np.isfinite(ranks)
    filled = np.where(present, ranks, 0.0)
    means = filled.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    return np.where(present, filled - means[:, np.newaxis], 0.0), present.astype(np.float64)
