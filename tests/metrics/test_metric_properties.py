"""Each metric against a naive transcription of its definition: ties, gaps, constants, NaN, shuffled lists."""

import itertools
import math
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coordinator_node.metrics import MetricsContext, MetricsRegistry
from coordinator_node.metrics.correlation import average_ranks, rank_correlations
from coordinator_node.metrics.crowd import leave_one_out_means

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = MetricsRegistry().available()

# A grid makes ties likely; the irregular numbers keep rounding honest. NaN and None lack a value.
VALUES = st.one_of(
    st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]),
    st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3)),
    st.sampled_from([math.nan, None]),
)


@st.composite
def competitions(draw):
    """The window of one model "m0": entries (slot, scope), and what each of up to four models said at them."""
    slots = draw(st.integers(1, 45))
    scopes = draw(st.sampled_from([["BTC-60"], ["BTC-60", "ETH-60"]]))
    entries = [(slot, scope) for slot in range(slots) for scope in scopes]
    constant = draw(st.booleans())
    models = {}
    for index in range(draw(st.integers(1, 4))):
        if constant and index == 1:
            models[f"m{index}"] = dict.fromkeys(entries, 1.0)
            continue
        present = draw(st.lists(st.booleans(), min_size=len(entries), max_size=len(entries)))
        values = draw(st.lists(VALUES, min_size=len(entries), max_size=len(entries)))
        models[f"m{index}"] = {e: v for e, v, here in zip(entries, values, present, strict=True) if here or index == 0}
    returns = dict(zip(entries, draw(st.lists(VALUES, min_size=len(entries), max_size=len(entries))), strict=True))
    scores = dict(zip(entries, draw(st.lists(VALUES, min_size=len(entries), max_size=len(entries))), strict=True))
    weights = draw(st.none() | st.fixed_dictionaries({name: st.sampled_from([0.0, 1.0, 2.0, 3.0]) for name in models}))
    return models, returns, scores, weights, draw(st.randoms(use_true_random=False))


def finite(value):
    return value is not None and math.isfinite(value)


def known(values):
    return {entry: value for entry, value in values.items() if finite(value)}


def naive_spearman(left, right):
    common = [entry for entry in left if entry in right]
    x, y = [left[e] for e in common], [right[e] for e in common]
    if len(common) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(stats.spearmanr(x, y).statistic)


def in_time_order(values):
    return [values[entry] for entry in sorted(values)]


def naive_ic_sharpe(signals, returns):
    entries = sorted(e for e in signals if e in returns)
    count = len(entries) // 10
    if count < 3:
        return None
    longer = len(entries) % count
    ics, position = [], 0
    for window in range(count):
        size = len(entries) // count + (1 if window < longer else 0)
        chosen = entries[position : position + size]
        ics.append(naive_spearman({e: signals[e] for e in chosen}, {e: returns[e] for e in chosen}))
        position += size
    ics = [ic for ic in ics if ic is not None]
    if len(ics) < 3 or np.std(ics) < 1e-9:
        return None
    return float(np.mean(ics) / np.std(ics, ddof=1))


def sign(value):
    return (value > 0) - (value < 0)


def naive_sortino(earned):
    losses = [min(r, 0.0) ** 2 for r in earned]
    if len(earned) < 2 or sum(losses) == 0:
        return None
    return (sum(earned) / len(earned)) / math.sqrt(sum(losses) / len(losses))


def naive_drawdown(scores):
    if not scores:
        return None
    total = peak = worst = 0.0
    for value in scores:
        total += value
        peak = max(peak, total)
        worst = min(worst, total - peak)
    return worst


def naive_turnover(signals):
    changes = []
    for scope in {entry[1] for entry in signals}:
        own = [signals[entry] for entry in sorted(signals) if entry[1] == scope]
        changes += [abs(after - before) for before, after in itertools.pairwise(own)]
    return sum(changes) / len(changes) if changes else None


def naive_model_correlation(mine, others):
    correlations = []
    for other in others:
        ranks = [dict(zip(own, stats.rankdata(list(own.values())), strict=True)) for own in (mine, other)]
        common = [entry for entry in mine if entry in other]
        x, y = [ranks[0][e] for e in common], [ranks[1][e] for e in common]
        if len(common) >= 3 and len(set(x)) > 1 and len(set(y)) > 1:
            correlations.append(float(stats.pearsonr(x, y).statistic))
    return sum(correlations) / len(correlations) if correlations else None


def twelve_digits(values, largest):
    """What differs only in the last digits of a sum is a tie."""
    return {entry: round(value / largest, 12) if largest else value for entry, value in values.items()}


def naive_fnc(mine, others, returns):
    entries = [e for e in mine if e in returns and any(e in other for other in others)]
    if len(entries) < 3:
        return None
    crowd = [sum(v) / len(v) for v in ([other[e] for other in others if e in other] for e in entries)]
    if max(crowd) - min(crowd) < 1e-12 * max(map(abs, crowd)):
        return None
    design = np.column_stack([np.ones(len(entries)), crowd])
    signals = np.array([mine[e] for e in entries])
    residual = signals - design @ np.linalg.lstsq(design, signals, rcond=None)[0]
    rounded = twelve_digits(dict(zip(entries, residual, strict=True)), max(abs(signals)))
    return naive_spearman(rounded, {e: returns[e] for e in entries})


def naive_mean(signals_by_model, weights, entry, leaving_out=None):
    members = {m: s[entry] for m, s in signals_by_model.items() if m != leaving_out and entry in s and weights[m] > 0}
    total = sum(weights[m] for m in members)
    return sum(weights[m] * value for m, value in members.items()) / total if members else None


def naive_contribution(signals_by_model, weights, returns, ensemble):
    without = {e: naive_mean(signals_by_model, weights, e, "m0") for e in ensemble}
    entries = [e for e in ensemble if e in signals_by_model["m0"] and e in returns and without[e] is not None]
    ics = []
    for values in (ensemble, without):
        chosen = {e: values[e] for e in entries}
        rounded = twelve_digits(chosen, max((abs(v) for v in chosen.values()), default=0.0))
        ics.append(naive_spearman(rounded, {e: returns[e] for e in entries}))
    return None if None in ics else ics[0] - ics[1]


def as_prediction(entry, value, **more):
    slot, scope_key = entry
    return {
        "inference_output": {"value": value},
        "performed_at": START + timedelta(seconds=15 * slot),
        "scope": {},
        "input_id": f"input-{slot}",
        "scope_key": scope_key,
        **more,
    }


def as_score(entry, value, actual_return):
    result = {"value": value, "actual_return": actual_return}
    return {"result": result, "scored_at": START, "input_id": f"input-{entry[0]}", "scope_key": entry[1]}


def defined(values):
    return {name: pytest.approx(value, abs=1e-7) for name, value in values.items() if value is not None}


@settings(max_examples=150, deadline=None)
@given(competitions())
def test_metrics_agree_with_their_definitions(competition):
    models, returns, scores, weights, random = competition
    signals = {name: known(values) for name, values in models.items()}
    mine, others = signals["m0"], [values for name, values in signals.items() if name != "m0"]
    real_returns, real_scores = known(returns), known(scores)
    used = weights or dict.fromkeys(models, 1.0)
    entries = {entry for values in signals.values() for entry in values}
    ensemble = {e: mean for e in entries if (mean := naive_mean(signals, used, e)) is not None}
    earned = [sign(mine[e]) * real_returns[e] for e in sorted(mine) if e in real_returns]
    hits = [r > 0 for r in earned if r != 0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        expected = {
            "ic": naive_spearman(mine, real_returns),
            "ic_sharpe": naive_ic_sharpe(mine, real_returns),
            "mean_return": sum(earned) / len(earned) if earned else None,
            "hit_rate": sum(hits) / len(hits) if hits else None,
            "model_correlation": naive_model_correlation(mine, others),
            "max_drawdown": naive_drawdown(in_time_order(real_scores)),
            "sortino_ratio": naive_sortino(earned),
            "turnover": naive_turnover(mine),
            "fnc": naive_fnc(mine, others, real_returns),
            "contribution": naive_contribution(signals, used, real_returns, ensemble),
            "ensemble_correlation": naive_spearman(mine, ensemble),
        }

    meta = {} if weights is None else {"meta": {"weights": weights}}
    aligned = [(as_prediction(e, v), as_score(e, scores[e], returns[e])) for e, v in models["m0"].items()]
    listed = {name: [as_prediction(e, v) for e, v in values.items()] for name, values in models.items()}
    virtual = [as_prediction(e, v, **meta) for e, v in ensemble.items()]
    for rows in (aligned, virtual, *listed.values()):
        random.shuffle(rows)
    context = MetricsContext(
        "m0",
        all_model_predictions={**listed, "__ensemble_main__": virtual},
        ensemble_predictions={"main": virtual},
    )
    predictions, score_rows = [p for p, _ in aligned], [s for _, s in aligned]
    computed = MetricsRegistry().compute(NAMES, predictions, score_rows, context)

    assert computed == defined(expected)
    assert all(type(value) is float for value in computed.values())


@given(st.lists(VALUES.map(lambda value: math.nan if value is None else value), max_size=40))
def test_average_ranks_agree_with_scipy(values):
    given_values = np.array(values, dtype=np.float64)
    if not given_values.size:
        assert average_ranks(given_values).size == 0
        return
    expected = stats.rankdata(given_values, nan_policy="omit")
    np.testing.assert_array_equal(average_ranks(given_values), expected)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 40))
def test_rank_correlations_of_all_pairs_agree_with_pearson_over_the_common_columns(seed, models, entries):
    random = np.random.default_rng(seed)
    signals = random.integers(-3, 4, (models, entries)).astype(np.float64)
    signals[random.random(signals.shape) < 0.3] = np.nan
    ranks = np.vstack([average_ranks(row) for row in signals])
    correlations = rank_correlations(ranks, ranks)
    for first in range(models):
        for second in range(models):
            both = np.isfinite(ranks[first]) & np.isfinite(ranks[second])
            x, y = ranks[first][both], ranks[second][both]
            if both.sum() < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
                assert np.isnan(correlations[first, second])
            else:
                assert correlations[first, second] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 20), st.booleans())
def test_leave_one_out_means_agree_with_a_loop(seed, models, entries, weighted):
    random = np.random.default_rng(seed)
    signals = random.normal(size=(models, entries))
    signals[random.random(signals.shape) < 0.3] = np.nan
    weights = random.integers(0, 4, signals.shape).astype(np.float64) if weighted else np.ones(signals.shape)
    means = leave_one_out_means(signals, weights if weighted else None)
    for row in range(models):
        for column in range(entries):
            members = [m for m in range(models) if m != row and np.isfinite(signals[m, column]) and weights[m, column]]
            if not members:
                assert np.isnan(means[row, column])
            else:
                expected = np.average(signals[members, column], weights=weights[members, column])
                assert means[row, column] == pytest.approx(expected, abs=1e-12)


def test_ties_among_others_means_survive_leaving_one_out():
    signals = np.array([[0.1, 0.7, 0.3], [0.2, 0.2, 0.2], [0.6, 0.6, 0.6]])
    means = leave_one_out_means(signals)
    assert len(set(means[0])) == 1
