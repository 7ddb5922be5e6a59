"""Rank correlations: of a signal with what happened, and of models with each other.

Arrays hold one value an observation. All return None (NaN in matrices) where there are too few observations or one
side does not vary.
"""

from __future__ import annotations

import numpy as np

from coordinator_node.metrics.arrays import Floats, alike, finite_pairs, without_gaps

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
    order = np.argsort(values)[: values.size - int(np.isnan(values).sum())]  # NaN comes last
    if order.size == 0:
        return ranks
    ascending = values[order]
    new = ascending[1:] != ascending[:-1]
    if new.all():
        ranks[order] = np.arange(1.0, order.size + 1.0)
        return ranks
    starts = np.flatnonzero(np.concatenate(([True], new)))
    sizes = np.diff(np.append(starts, ascending.size))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes)
    return ranks


def spearman(left: Floats, right: Floats) -> float | None:
    """Spearman's rank correlation with average ranks for ties, over the positions where both are finite."""
    left, right = finite_pairs(left, right)
    return _correlated(average_ranks(left), average_ranks(right))


def information_coefficients(signals: Floats, returns: Floats, ranks: Floats) -> list[float | None]:
    """`ic`: Spearman's correlation of each row of signals with the actual returns of that row.

    Args:
        signals: (m, n), not finite where there is none.
        returns: (m, n) likewise.
        ranks: (m, n), those of each row's finite signals among all of them; NaN elsewhere.
    """
    if len(returns) and without_gaps(signals, returns) and alike(returns):
        return _correlations_with(ranks, average_ranks(returns[0]))
    # Models that answered in the same slots are measured against the same returns: these are ranked once.
    ranked: dict[bytes, Floats] = {}
    found: list[float | None] = []
    for signal, outcome, rank in zip(signals, returns, ranks, strict=True):
        said = np.isfinite(signal)
        both = said & np.isfinite(outcome)
        all_known = int(both.sum()) == int(said.sum())
        happened = outcome[both]
        key = happened.tobytes()
        if key not in ranked:
            ranked[key] = average_ranks(happened)
        found.append(_correlated(rank[both] if all_known else average_ranks(signal[both]), ranked[key]))
    return found


def information_coefficient(signals: Floats, returns: Floats) -> float | None:
    """`ic` of one model: Spearman's correlation of its signals with the actual returns."""
    return spearman(signals, returns)


def information_coefficient_sharpes(signals: Floats, returns: Floats) -> list[float | None]:
    """`ic_sharpe` of each row: mean over sample standard deviation of the ICs of sub-windows in time order.

    The observations are cut into as many runs of equal length (to within one) as hold at least MIN_SUB_WINDOW each. A
    run whose IC is undefined is left out. None with fewer than MIN_SUB_WINDOWS ICs, or where they do not vary.

    Args:
        signals: (m, n), not finite where there is none.
        returns: (m, n) likewise.
    """
    if without_gaps(signals, returns):
        pairs = list(zip(signals, returns, strict=True))
    else:
        pairs = [finite_pairs(signal, outcome) for signal, outcome in zip(signals, returns, strict=True)]
    found: list[float | None] = [None] * len(pairs)
    by_length: dict[int, list[int]] = {}
    for row, (own, _) in enumerate(pairs):
        by_length.setdefault(own.size, []).append(row)
    for length, rows in by_length.items():
        if length // MIN_SUB_WINDOW >= MIN_SUB_WINDOWS:
            ics = _sub_window_correlations(
                np.vstack([pairs[row][0] for row in rows]), np.vstack([pairs[row][1] for row in rows])
            )
            for row, own_ics in zip(rows, ics, strict=True):
                found[row] = _mean_over_deviation(own_ics)
    return found


def rank_correlations(left: Floats, right: Floats) -> Floats:
    """Pearson's correlation of each row of `left` with each row of `right`, over the columns that both have.

    Args:
        left: (a, n) ranks, each row's taken over its own window; NaN where the row has no entry.
        right: (b, n) likewise.

    Returns:
        (a, b), NaN where fewer than MIN_CORRELATED columns are common or a row does not vary over them.
    """
    if left.shape[1] >= MIN_CORRELATED and without_gaps(left, right):
        return _full_rank_correlations(left, right)
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


def _correlated(first: Floats, second: Floats) -> float | None:
    """Pearson's correlation of two arrays of ranks; None for too few, or where one side does not vary."""
    if first.size < MIN_CORRELATED:
        return None
    first, second = first - first.mean(), second - second.mean()
    spread = np.sqrt((first @ first) * (second @ second))
    return None if spread < _LEAST_RANK_SPREAD else float(np.clip((first @ second) / spread, -1.0, 1.0))


def _correlations_with(ranks: Floats, other: Floats) -> list[float | None]:
    """`_correlated` of each row of ranks with the same other ranks; no value is missing."""
    if other.size < MIN_CORRELATED:
        return [None] * len(ranks)
    ranks, other = ranks - ranks.mean(axis=1, keepdims=True), other - other.mean()
    spreads = np.sqrt((ranks**2).sum(axis=1) * (other @ other))
    return [
        None if spread < _LEAST_RANK_SPREAD else float(np.clip(together / spread, -1.0, 1.0))
        for together, spread in zip(ranks @ other, spreads, strict=True)
    ]


def _sub_window_correlations(signals: Floats, returns: Floats) -> Floats:
    """(m, k): for each row of finite values, Spearman's correlation in each of its k sub-windows, NaN if undefined."""
    models, length = signals.shape
    count = length // MIN_SUB_WINDOW
    size, longer = divmod(length, count)
    cut = longer * (size + 1)
    if alike(returns):
        returns = returns[:1]  # ranked once for all
    parts = [
        _row_spearman(signals[:, part].reshape(-1, width), returns[:, part].reshape(-1, width)).reshape(models, -1)
        for part, width in ((slice(0, cut), size + 1), (slice(cut, None), size))
    ]
    return np.hstack(parts)


def _mean_over_deviation(ics: Floats) -> float | None:
    defined = ics[np.isfinite(ics)]
    if defined.size < MIN_SUB_WINDOWS:
        return None
    deviation = float(np.std(defined, ddof=1))
    return None if deviation <= _ROUNDING else float(np.mean(defined)) / deviation


def _row_spearman(left: Floats, right: Floats) -> Floats:
    """`spearman` of each row of two matrices of finite values; NaN where it is undefined.

    `right` may have fewer rows, which are then taken again and again.
    """
    first, second = _short_row_ranks(left), _short_row_ranks(right)
    first -= first.mean(axis=0)
    second -= second.mean(axis=0)
    repeated = len(left) // max(len(right), 1)
    second = np.tile(second, repeated) if repeated > 1 else second
    spread = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    correlations = np.full(len(left), np.nan)
    np.divide((first * second).sum(axis=0), spread, out=correlations, where=spread >= _LEAST_RANK_SPREAD)
    return correlations


def _short_row_ranks(values: Floats) -> Floats:
    """Average ranks within each row, transposed: (width, rows). For rows of a sub-window's length, at most 127.

    Each value is compared with each other one of its row, all rows at once: a rank is the middle one, up by a half for
    every value below it and down by a half for every value above it.
    """
    columns = np.ascontiguousarray(values.T)
    width = len(columns)
    balance = np.zeros(columns.shape, dtype=np.int8)
    for one in range(width):
        for other in range(one + 1, width):
            above = (columns[one] > columns[other]).view(np.int8)
            below = (columns[one] < columns[other]).view(np.int8)
            balance[one] += above - below
            balance[other] += below - above
    ranks: Floats = (balance + float(width + 1)) / 2
    return ranks


def _full_rank_correlations(left: Floats, right: Floats) -> Floats:
    """`rank_correlations` of rows without a gap: one product of matrices instead of seven."""
    x = left - left.mean(axis=1, keepdims=True)
    y = x if right is left else right - right.mean(axis=1, keepdims=True)
    x_squares, y_squares = (x**2).sum(axis=1, keepdims=True), (y**2).sum(axis=1)
    defined = (x_squares > _LEAST_RANK_SPREAD) & (y_squares > _LEAST_RANK_SPREAD)
    correlations = np.full(defined.shape, np.nan)
    np.divide(x @ y.T, np.sqrt(np.where(defined, x_squares * y_squares, 1.0)), out=correlations, where=defined)
    bounded: Floats = np.clip(correlations, -1.0, 1.0)
    return bounded


def _centred(ranks: Floats) -> tuple[Floats, Floats]:
    """Each row less its mean, 0 where it has no entry; and 1.0 where it has one.

    Subtracting a constant changes no correlation; it keeps the sums of squares small enough to be exact.
    """
    present = np.isfinite(ranks)
    filled = np.where(present, ranks, 0.0)
    means = filled.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    return np.where(present, filled - means[:, np.newaxis], 0.0), present.astype(np.float64)
