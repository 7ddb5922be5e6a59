"""One small case for each registered metric, its value worked out by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from coordinator_node.metrics import MetricsContext, MetricsRegistry, get_default_registry

START = datetime(2026, 1, 1, tzinfo=UTC)


def prediction(index, value, scope_key="BTC-60", **more):
    return {
        "inference_output": {"value": value},
        "performed_at": START + timedelta(seconds=15 * index),
        "scope": {"subject": "BTC"},
        "input_id": f"input-{index}",
        "scope_key": scope_key,
        **more,
    }


def score(index, result, scope_key="BTC-60", **more):
    return {"result": result, "scored_at": START, "input_id": f"input-{index}", "scope_key": scope_key, **more}


def series(values):
    return [prediction(index, value) for index, value in enumerate(values) if value is not None]


def outcomes(returns, scores=None):
    values = scores or [0.0] * len(returns)
    pairs = zip(values, returns, strict=True)
    return [score(index, {"value": v, "actual_return": r}) for index, (v, r) in enumerate(pairs) if r is not None]


SIGNALS = [1.0, 2.0, 2.0, -1.0, 0.0]
RETURNS = [0.01, 0.03, -0.02, -0.01, 0.02]


def windows_of_ten():
    """Three sub-windows whose ICs are 1, 1 and -1."""
    signals = [float(index % 10) for index in range(30)]
    returns = [(-1.0 if index >= 20 else 1.0) * (index % 10) for index in range(30)]
    return series(signals), outcomes(returns)


OTHER = series([3.0, 1.0, 2.0, 4.0, 5.0, 2.5])
ENSEMBLE = series([2.0, 1.5, 2.0, 1.5, 2.5])

# Each value: (predictions, scores, context, expected).
REFERENCES = {
    # Ranks of the signals 3, 4.5, 4.5, 1, 2 and of the returns 3, 5, 1, 2, 4: covariance 1 over sqrt(9.5 * 10).
    "ic": (series(SIGNALS), outcomes(RETURNS), {}, 1 / 95**0.5),
    # Mean 1/3 over the sample deviation sqrt(4/3).
    "ic_sharpe": (*windows_of_ten(), {}, (1 / 3) / (4 / 3) ** 0.5),
    # (0.01 + 0.03 - 0.02 + 0.01 + 0) / 5
    "mean_return": (series(SIGNALS), outcomes(RETURNS), {}, 0.03 / 5),
    # Right, right, wrong, right; the zero signal is left out.
    "hit_rate": (series(SIGNALS), outcomes(RETURNS), {}, 0.75),
    # Own ranks 3, 4.5, 4.5, 1, 2; the other's, taken over its six entries, 4, 1, 2, 5, 6 at the common five.
    "model_correlation": (
        series(SIGNALS),
        outcomes(RETURNS),
        {"all_model_predictions": {"other": OTHER}},
        -11.5 / (9.5 * 17.2) ** 0.5,
    ),
    # The curve 0, -1, 1, -2, -1, 0 falls from its peak 1 to -2.
    "max_drawdown": (series(SIGNALS), outcomes(RETURNS, [-1.0, 2.0, -3.0, 1.0, 1.0]), {}, -3.0),
    # Mean 0.006 over sqrt(0.0004 / 5).
    "sortino_ratio": (series(SIGNALS), outcomes(RETURNS), {}, 0.006 / (0.0004 / 5) ** 0.5),
    # |1| + |0| + |-3| + |1|, four changes.
    "turnover": (series(SIGNALS), outcomes(RETURNS), {}, 5 / 4),
    # The other's mean signal is 0, 1, 2: what is left of 2, 0, 4 is 1, -2, 1; ranks 2.5, 1, 2.5 against 3, 1, 2.
    "fnc": (
        series([2.0, 0.0, 4.0]),
        outcomes([0.3, 0.1, 0.2]),
        {"all_model_predictions": {"low": series([-1.0, 0.0, 1.0]), "high": series([1.0, 2.0, 3.0])}},
        1.5 / (1.5 * 2) ** 0.5,
    ),
    # The ensemble 1, 2, 3 has an IC of 1; without the model it is 3, 1, 2, whose IC is -0.5.
    "contribution": (
        series([-1.0, 3.0, 4.0]),
        outcomes([0.1, 0.2, 0.3]),
        {
            "all_model_predictions": {"other": series([3.0, 1.0, 2.0])},
            "ensemble_predictions": {"main": series([1, 2, 3])},
        },
        1.5,
    ),
    # Ranks 3, 4.5, 4.5, 1, 2 against 3.5, 1.5, 3.5, 1.5, 5: covariance -0.5 over sqrt(9.5 * 9).
    "ensemble_correlation": (
        series(SIGNALS),
        outcomes(RETURNS),
        {"ensemble_predictions": {"main": ENSEMBLE}},
        -0.5 / (9.5 * 9) ** 0.5,
    ),
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_reference_value(name):
    predictions, scores, context, expected = REFERENCES[name]
    values = MetricsRegistry().compute([name], predictions, scores, MetricsContext("mine", **context))
    assert values == {name: pytest.approx(expected, abs=1e-12)}


def test_every_registered_metric_has_a_reference_value():
    assert set(MetricsRegistry().available()) == set(REFERENCES)
    assert set(REFERENCES) <= set(get_default_registry().available())
