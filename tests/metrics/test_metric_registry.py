"""The registry: what it keeps, what it leaves out and what it says about it."""

import logging
import math
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from coordinator_node.metrics import MetricsContext, MetricsRegistry, get_default_registry
from coordinator_node.metrics.observations import ObservationTable

START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(count=40, seed=1):
    random = np.random.default_rng(seed)
    predictions = [
        {
            "inference_output": {"value": float(random.normal())},
            "performed_at": START + timedelta(seconds=index),
            "scope": {},
            "input_id": f"i{index}",
            "scope_key": "BTC-60",
        }
        for index in range(count)
    ]
    scores = [
        {
            "result": {"value": float(random.normal()), "actual_return": float(random.normal())},
            "scored_at": START,
            "input_id": f"i{index}",
            "scope_key": "BTC-60",
        }
        for index in range(count)
    ]
    return predictions, scores


def context(model_id="m", end=START):
    return MetricsContext(model_id, window_start=START, window_end=end)


def raises(predictions, scores, context):
    raise RuntimeError("broken")


def test_a_custom_metric_is_given_the_lists_and_the_context():
    registry = MetricsRegistry()
    seen = []
    registry.register("mine", lambda *given: seen.append(given) or 2)
    predictions, scores = rows(3)
    where = context()
    values = registry.compute(["mine"], predictions, scores, where)
    assert values == {"mine": 2.0}
    assert type(values["mine"]) is float
    assert seen == [(predictions, scores, where)]


def test_registering_again_replaces_even_a_built_in():
    registry = MetricsRegistry()
    registry.register("ic", lambda predictions, scores, context: 42.0)
    assert registry.compute(["ic"], *rows(), context()) == {"ic": 42.0}
    assert MetricsRegistry().compute(["ic"], *rows(), context())["ic"] != 42.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0.5", True, [1.0]])
def test_what_is_no_finite_number_is_left_out_and_logged(value, caplog):
    registry = MetricsRegistry()
    registry.register("odd", lambda predictions, scores, context: value)
    with caplog.at_level(logging.WARNING):
        values = registry.compute(["odd", "hit_rate"], *rows(), context())
    assert set(values) == {"hit_rate"}
    assert "'odd'" in caplog.text
    assert "model m" in caplog.text


def test_none_is_undefined_and_left_out_in_silence(caplog):
    registry = MetricsRegistry()
    registry.register("undefined", lambda predictions, scores, context: None)
    assert registry.compute(["undefined", "ic"], *rows(2), context()) == {}
    assert not caplog.records


def test_a_metric_that_would_end_the_process_is_left_out_like_one_that_raises(caplog):
    registry = MetricsRegistry()
    registry.register("bad", lambda *given: sys.exit(1))
    assert set(registry.compute(["bad", "hit_rate"], *rows(), context())) == {"hit_rate"}
    assert "SystemExit: 1" in caplog.text


def test_a_raising_metric_costs_only_itself_and_is_logged_once_a_window(caplog):
    registry = MetricsRegistry()
    registry.register("bad", raises)
    for model_id in ("a", "b", "c"):
        assert set(registry.compute(["bad", "hit_rate"], *rows(), context(model_id))) == {"hit_rate"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "RuntimeError: broken" in caplog.text
    registry.compute(["bad"], *rows(), context(end=START + timedelta(minutes=1)))
    assert len(caplog.records) == 2


def test_an_unknown_metric_is_left_out_and_logged_with_the_names_there_are(caplog):
    assert set(MetricsRegistry().compute(["icc", "hit_rate"], *rows(), context())) == {"hit_rate"}
    assert "'icc'" in caplog.text
    assert "ic_sharpe" in caplog.text


def test_malformed_rows_leave_the_built_in_metrics_out(caplog):
    predictions, scores = rows(5)
    predictions[2] = None
    assert MetricsRegistry().compute(["ic", "hit_rate"], predictions, scores, context()) == {}
    assert "'ic'" in caplog.text


def test_values_beyond_the_floats_are_left_out_without_a_numpy_warning():
    predictions, scores = rows(5)
    for score in scores:
        score["result"] |= {"value": 1e308, "actual_return": -1e308}
    values = MetricsRegistry().compute(["max_drawdown", "mean_return", "sortino_ratio"], predictions, scores, context())
    assert all(math.isfinite(value) for value in values.values())


def test_register_refuses_what_it_could_not_call():
    with pytest.raises(TypeError, match="'mine' is a float"):
        MetricsRegistry().register("mine", 0.5)
    with pytest.raises(ValueError, match="needs a name"):
        MetricsRegistry().register("", raises)


def test_the_default_registry_is_one_for_the_process():
    assert get_default_registry() is get_default_registry()
    assert get_default_registry().get("ic") is not None
    assert get_default_registry().get("nothing of this name") is None


def test_available_is_in_alphabetical_order():
    registry = MetricsRegistry()
    registry.register("aaa", raises)
    assert registry.available()[0] == "aaa"
    assert registry.available() == sorted(registry.available())


def test_a_whole_table_gives_what_each_model_gets_on_its_own():
    random = np.random.default_rng(7)
    models, entries = 6, 60
    names = [f"m{index}" for index in range(models)]
    signals = random.integers(-5, 6, (models, entries)).astype(np.float64)
    signals[random.random(signals.shape) < 0.2] = np.nan
    signals[2] = 1.0
    truth = random.normal(size=entries)
    scores = np.where(np.isfinite(signals), random.normal(size=signals.shape), np.nan)
    returns = np.where(np.isfinite(signals), truth, np.nan)
    weights = random.integers(0, 3, models).astype(np.float64)
    weights[0] = 1.0
    members = np.isfinite(signals) * weights[:, np.newaxis]
    total = members.sum(axis=0)
    ensemble = np.where(total > 0, (np.nan_to_num(signals) * members).sum(axis=0) / np.maximum(total, 1), np.nan)

    def said(row, **more):
        return [
            {
                "inference_output": {"value": float(row[column])},
                "performed_at": START + timedelta(seconds=column),
                "input_id": f"i{column}",
                "scope_key": "BTC" if column % 2 else "ETH",
                **more,
            }
            for column in range(entries)
            if np.isfinite(row[column])
        ]

    virtual = said(ensemble, meta={"weights": dict(zip(names, weights, strict=True))})
    everyone = {name: said(row) for name, row in zip(names, signals, strict=True)}
    # An ensemble may have a row of its own, to be measured; it changes no other row's numbers.
    table = ObservationTable(
        model_ids=(*names, "__ensemble_main__"),
        scopes=np.arange(entries) % 2,
        signals=np.vstack([signals, ensemble]),
        scores=np.vstack([scores, np.full(entries, np.nan)]),
        returns=np.vstack([returns, truth]),
        ensemble=ensemble,
        ensemble_weights=np.vstack([np.repeat(weights[:, np.newaxis], entries, axis=1), np.zeros(entries)]),
    )
    registry = MetricsRegistry()
    together = registry.compute_table(registry.available(), table, START)
    for row, name in enumerate((*names, "__ensemble_main__")):
        mine = said(table.signals[row])
        columns = np.flatnonzero(np.isfinite(table.signals[row]))
        outcomes = [
            {
                "result": {
                    "value": float(table.scores[row, column]),
                    "actual_return": float(table.returns[row, column]),
                },
                "scored_at": START,
            }
            for column in columns
        ]
        alone = MetricsContext(name, all_model_predictions=everyone, ensemble_predictions={"main": virtual})
        expected = registry.compute(registry.available(), mine, outcomes, alone)
        assert together[name] == pytest.approx(expected, abs=1e-12)
    assert set(together["m0"]) == set(registry.available())
    assert "contribution" not in together["__ensemble_main__"]


def test_an_overridden_built_in_is_not_computed_from_the_table():
    registry = MetricsRegistry()
    registry.register("ic", raises)
    table = ObservationTable(("m",), np.zeros(3, dtype=np.intp), np.ones((1, 3)), np.ones((1, 3)), np.ones((1, 3)))
    assert registry.compute_table(["ic", "max_drawdown"], table, START) == {"m": {"max_drawdown": 0.0}}
