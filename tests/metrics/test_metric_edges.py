"""Too few observations, no variance, and rounding that must not look like variance."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from coordinator_node.metrics import MetricsContext, MetricsRegistry
from coordinator_node.metrics.correlation import information_coefficient, information_coefficient_sharpes, spearman
from coordinator_node.metrics.crowd import contribution, feature_neutral_correlation
from coordinator_node.metrics.returns import hit_rate, max_drawdown, mean_return, sortino_ratio, turnover

START = datetime(2026, 1, 1, tzinfo=UTC)


def array(*values):
    return np.array(values, dtype=np.float64)


def information_coefficient_sharpe(signals, returns):
    return information_coefficient_sharpes(signals[np.newaxis], returns[np.newaxis])[0]


def test_two_points_are_too_few_for_a_correlation():
    assert spearman(array(1, 2), array(1, 2)) is None
    assert spearman(array(1, 2, 3), array(1, 2, np.nan)) is None
    assert spearman(array(1, 2, 3), array(1, 2, 3)) == 1.0


def test_a_constant_side_has_no_correlation():
    constant = np.full(7, 0.1)
    assert information_coefficient(constant, np.arange(7.0)) is None
    assert information_coefficient(np.arange(7.0), constant) is None


def test_ic_sharpe_needs_three_sub_windows_of_ten():
    random = np.random.default_rng(3)
    signals, returns = random.normal(size=40), random.normal(size=40)
    assert information_coefficient_sharpe(signals[:29], returns[:29]) is None
    assert information_coefficient_sharpe(signals[:30], returns[:30]) is not None
    with_gap = returns[:30].copy()
    with_gap[4] = np.nan
    assert information_coefficient_sharpe(signals[:30], with_gap) is None


def test_ic_sharpe_of_equal_ics_is_undefined_though_their_mean_rounds():
    # 35 observations: sub-windows of 12, 12 and 11, each in perfect order.
    assert information_coefficient_sharpe(np.arange(35.0), np.arange(35.0) ** 3) is None
    random = np.random.default_rng(0)
    signals, returns = (np.tile(random.permutation(10).astype(np.float64), 7) for _ in range(2))
    assert information_coefficient_sharpe(signals, returns) is None


def test_ic_sharpe_leaves_out_a_sub_window_without_variance():
    random = np.random.default_rng(4)
    signals, returns = random.normal(size=40), random.normal(size=40)
    signals[10:20] = 1.0
    ics = [spearman(signals[i : i + 10], returns[i : i + 10]) for i in (0, 20, 30)]
    assert information_coefficient_sharpe(signals, returns) == pytest.approx(np.mean(ics) / np.std(ics, ddof=1))


def test_means_of_nothing_are_undefined():
    nothing = array()
    assert mean_return(nothing, nothing) is None
    assert hit_rate(nothing, nothing) is None
    assert hit_rate(array(0, 1), array(1, 0)) is None
    assert max_drawdown(array(np.nan)) is None
    assert sortino_ratio(array(1), array(-1)) is None


def test_no_loss_has_no_sortino_ratio():
    assert sortino_ratio(array(1, -1, 1), array(0.1, -0.2, 0.0)) is None


def test_drawdown_starts_from_zero_and_is_never_positive():
    assert max_drawdown(array(-1)) == -1.0
    assert max_drawdown(array(1, 2, 3)) == 0.0


def test_turnover_of_a_constant_is_zero_and_of_one_point_undefined():
    scopes = np.zeros(3, dtype=np.intp)
    assert turnover(np.full(3, 0.3), scopes) == 0.0
    assert turnover(array(1, np.nan, np.nan), scopes) is None
    assert turnover(array(1, 5), np.array([0, 1])) is None
    # A gap joins its neighbours.
    assert turnover(array(1, np.nan, 4), scopes) == 3.0


def test_nothing_is_left_of_a_signal_that_the_others_already_give():
    others = np.random.default_rng(5).normal(size=50)
    returns = np.random.default_rng(6).normal(size=50)
    assert feature_neutral_correlation(3.0 * others + 0.1, others, returns) is None
    assert feature_neutral_correlation(-0.7 * others, others, returns) is None


def test_fnc_is_undefined_where_the_others_do_not_vary():
    returns = np.random.default_rng(6).normal(size=5)
    assert feature_neutral_correlation(np.arange(5.0), np.full(5, 0.1) + 1e-17, returns) is None


def test_the_residual_of_fnc_is_orthogonal_so_that_shifting_and_scaling_the_others_changes_nothing():
    random = np.random.default_rng(8)
    signals, others, returns = random.normal(size=(3, 60))
    value = feature_neutral_correlation(signals, others, returns)
    assert feature_neutral_correlation(signals, 5.0 - 2.0 * others, returns) == pytest.approx(value)
    assert feature_neutral_correlation(signals + 3.0 * others, others, returns) == pytest.approx(value)


def test_contribution_of_what_leaves_the_order_alone_is_zero():
    ensemble = np.random.default_rng(9).normal(size=30)
    returns = np.random.default_rng(10).normal(size=30)
    assert contribution(ensemble, 2.0 * ensemble + 1.0, returns) == 0.0
    assert contribution(ensemble, np.full(30, 1.0), returns) is None


def said(values, **more):
    return [
        {
            "inference_output": {"value": value},
            "performed_at": START + timedelta(seconds=index),
            "input_id": f"i{index}",
            "scope_key": "s",
            **more,
        }
        for index, value in enumerate(values)
    ]


def contribution_of(model_id, everyone, weights, returns):
    virtual = said(
        [sum(w * everyone[m][i] for m, w in weights.items()) / sum(weights.values()) for i in range(len(returns))],
        meta={"weights": weights},
    )
    context = MetricsContext(
        model_id,
        all_model_predictions={name: said(values) for name, values in everyone.items()},
        ensemble_predictions={"__ensemble_main__": virtual},
    )
    scores = [{"result": {"value": 0.0, "profit": r}, "scored_at": START} for r in returns]
    return MetricsRegistry().compute(["contribution"], said(everyone[model_id]), scores, context)


def test_who_is_no_member_contributes_nothing():
    everyone = {"a": [1.0, 2.0, 3.0, 5.0], "b": [2.0, 1.0, 4.0, 3.0], "c": [9.0, 1.0, 1.0, 7.0]}
    assert contribution_of("c", everyone, {"a": 0.5, "b": 0.5}, [0.1, 0.2, 0.4, 0.3]) == {"contribution": 0.0}


def test_without_who_is_no_member_the_ensemble_stays_as_it_was_stored():
    virtual = said([4.0, 3.0, 2.0, 1.0], meta={"weights": {"member": 0.9, "unscored": 0.1}})
    context = MetricsContext(
        "m", all_model_predictions={"member": said([1.0, 2.0, 3.0, 4.0])}, ensemble_predictions={"main": virtual}
    )
    scores = [{"result": {"value": 0.0, "profit": r}, "scored_at": START} for r in (0.1, 0.2, 0.3, 0.4)]
    values = MetricsRegistry().compute(["contribution"], said([1.0, 1.0, 2.0, 2.0]), scores, context)
    assert values == {"contribution": 0.0}


def test_an_ensemble_of_one_model_is_nothing_without_it():
    everyone = {"a": [1.0, 2.0, 3.0, 5.0]}
    assert contribution_of("a", everyone, {"a": 1.0}, [0.1, 0.2, 0.4, 0.3]) == {}


def test_the_weights_of_the_ensemble_decide_what_is_left_without_a_model():
    everyone = {"a": [1.0, 2.0, 3.0, 4.0], "b": [4.0, 3.0, 2.0, 1.0], "c": [1.0, 2.0, 3.0, 4.5]}
    returns = [0.1, 0.2, 0.3, 0.4]
    assert contribution_of("a", everyone, {"a": 3.0, "b": 1.0, "c": 0.1}, returns) == {"contribution": 2.0}
    assert contribution_of("b", everyone, {"a": 3.0, "b": 1.0, "c": 0.1}, returns) == {"contribution": 0.0}
