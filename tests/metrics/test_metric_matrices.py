"""Measures of many models at once, and ranks that are kept up, are those of one model and of one window alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coordinator_node.metrics import running_ranks
from coordinator_node.metrics.correlation import (
    average_ranks,
    information_coefficient,
    information_coefficient_sharpes,
    information_coefficients,
)
from coordinator_node.metrics.returns import hit_rate, hit_rates, max_drawdown, max_drawdowns
from coordinator_node.metrics.running_ranks import RunningRanks

# Few different values, so that ties are common.
LEVELS = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0])
WITH_GAPS = LEVELS | st.just(float("nan"))
# How far each end of the window moves on.
MOVES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(series=arrays(np.float64, 80, elements=WITH_GAPS), moves=MOVES, most=st.sampled_from([0, 3, 64]))
def test_ranks_that_are_kept_up_are_those_that_are_taken_anew(
    series: np.ndarray, moves: list[tuple[int, int]], most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_ranks, "MOST_MOVED", most)
        ranks = RunningRanks()
        first, end = 0, 10
        for left, come in [(0, 0), *moves, (-3, 0), (0, -4), (1, 1)]:
            first = max(min(first + left, 80), 0)
            end = max(min(end + come, 80), first)
            window = series[first:end]
            np.testing.assert_array_equal(ranks.of(window, first), average_ranks(window))


@given(
    signals=arrays(np.float64, (4, 35), elements=WITH_GAPS),
    returns=arrays(np.float64, (4, 35), elements=WITH_GAPS),
    gaps=st.booleans(),
    one_market=st.booleans(),
)
def test_matrices_give_what_their_rows_give(
    signals: np.ndarray, returns: np.ndarray, *, gaps: bool, one_market: bool
) -> None:
    if one_market:
        returns = np.repeat(returns[:1], 4, axis=0)
    if not gaps:
        signals, returns = np.nan_to_num(signals), np.nan_to_num(returns)
    rows = list(zip(signals, returns, strict=True))
    ranks = np.vstack([average_ranks(row) for row in signals])
    assert information_coefficients(signals, returns, ranks) == [information_coefficient(*row) for row in rows]
    assert information_coefficient_sharpes(signals, returns) == [
        information_coefficient_sharpes(signal[np.newaxis], outcome[np.newaxis])[0] for signal, outcome in rows
    ]
    assert hit_rates(signals, returns) == [hit_rate(*row) for row in rows]
    assert max_drawdowns(signals) == [max_drawdown(row) for row in signals]
