"""Ensembles: weights that are weights, members that may be members, and averages that are averages."""

import math
import statistics
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.services.ensemble import (
    ENSEMBLE_PREFIX,
    ENSEMBLE_SUFFIX,
    MAX_PRECISION_RATIO,
    apply_model_filter,
    build_ensemble_predictions,
    ensemble_model_id,
    equal_weight,
    inverse_variance,
    is_ensemble_model,
    min_metric,
    normalised_weights,
    top_n,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
ENSEMBLE = "__ensemble_other__"


def prediction(index, value, **more):
    return {
        "inference_output": {"value": value},
        "performed_at": START + timedelta(seconds=index),
        "scope": {"subject": "BTC"},
        "input_id": f"i{index}",
        "scope_key": "BTC-60",
        **more,
    }


def said(*values):
    return [prediction(index, value) for index, value in enumerate(values)]


def test_names():
    assert (ENSEMBLE_PREFIX, ENSEMBLE_SUFFIX) == ("__ensemble_", "__")
    assert ensemble_model_id("main") == "__ensemble_main__"
    assert is_ensemble_model("__ensemble_main__")
    assert is_ensemble_model(ensemble_model_id("_"))
    assert not any(map(is_ensemble_model, ["main", "__ensemble_main", "ensemble_main__", "__ensemble__", ""]))


def test_equal_weight():
    assert equal_weight({}, {"a": said(1), "b": said(2), ENSEMBLE: said(3)}) == {"a": 0.5, "b": 0.5}
    assert equal_weight({"a": {}}, {}) == {}


def test_inverse_variance_is_one_over_the_sample_variance():
    predictions = {"a": said(1, 2, 3), "b": said(2, 4, 6), "c": said(1, 1.5, 2.5)}
    inverse = {
        model: 1 / statistics.variance(p["inference_output"]["value"] for p in rows)
        for model, rows in predictions.items()
    }
    total = sum(inverse.values())
    assert inverse_variance({}, predictions) == pytest.approx({model: w / total for model, w in inverse.items()})


@pytest.mark.parametrize("still", [said(1, 1, 1), said(1, 1, 1 + 1e-12), said(0, 0, 5e-324)])
def test_an_almost_constant_model_cannot_take_all(still):
    moving = {"a": said(1, 2, 3), "b": said(3, 2, 1)}
    weights = inverse_variance({}, {"still": still, **moving})
    assert weights["still"] == pytest.approx(MAX_PRECISION_RATIO * weights["a"])
    assert weights == pytest.approx({"still": 10 / 12, "a": 1 / 12, "b": 1 / 12})
    many = inverse_variance({}, {"still": still, **{f"m{index}": said(1, 2, 3) for index in range(30)}})
    assert many["still"] == pytest.approx(10 / 40)


def test_several_almost_constant_models_cannot_take_all_together():
    weights = inverse_variance({}, {"x": said(1, 1), "y": said(2, 2), "z": said(0, 0), "moving": said(0, 1)})
    assert weights["moving"] == pytest.approx(1 / 31)


def test_without_any_variance_the_weights_are_equal():
    assert inverse_variance({}, {"a": said(1, 1), "b": said(2, 2)}) == {"a": 0.5, "b": 0.5}
    assert inverse_variance({}, {"a": said(1), "b": said(2)}) == {"a": 0.5, "b": 0.5}
    assert inverse_variance({}, {}) == {}


def test_who_has_no_variance_beside_others_has_no_weight():
    assert inverse_variance({}, {"a": said(1, 2), "new": said(1), "odd": said(None, math.nan, 2)}) == {"a": 1.0}
    assert inverse_variance({}, {"a": said(1, 2), ENSEMBLE: said(1, 2)}) == {"a": 1.0}


SIGNALS = st.lists(st.none() | st.floats() | st.floats(-1, 1), max_size=6)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", ENSEMBLE]), SIGNALS),
    st.sampled_from([inverse_variance, equal_weight]),
)
def test_weights_are_weights(signals, strategy):
    weights = strategy({}, {model: said(*values) for model, values in signals.items()})
    assert set(weights) <= set(signals) - {ENSEMBLE}
    assert all(math.isfinite(weight) and weight >= 0 for weight in weights.values())
    assert not weights or sum(weights.values()) == pytest.approx(1.0)
    assert bool(weights) == bool(set(signals) - {ENSEMBLE})


@given(st.dictionaries(st.sampled_from(["a", "b", "c", ENSEMBLE]), st.floats() | st.none() | st.booleans()))
def test_normalised_weights_are_weights_whatever_a_strategy_gives(given_weights):
    weights = normalised_weights(given_weights)
    assert all(math.isfinite(weight) and weight >= 0 for weight in weights.values())
    assert not weights or sum(weights.values()) == pytest.approx(1.0)
    assert ENSEMBLE not in weights


METRICS = {
    "a": {"score_recent": 0.1, "ic": 0.3},
    "b": {"score_recent": 0.3, "ic": 0.2},
    "c": {"score_recent": 0.2, "ic": 0.1},
    "d": {"ic": 0.5},
}
PREDICTIONS = {model: said(1) for model in (*METRICS, ENSEMBLE)}


def kept(model_filter, metrics=METRICS, **ranking):
    return set(apply_model_filter(model_filter, metrics, PREDICTIONS, **ranking))


def test_no_filter_keeps_every_real_model_with_its_predictions():
    assert apply_model_filter(None, METRICS, PREDICTIONS) == {model: said(1) for model in METRICS}


def test_top_n_looks_at_all_models_by_the_ranking():
    assert kept(top_n(2)) == {"b", "c"}
    assert kept(top_n(2), ranking_direction="asc") == {"a", "c"}
    assert kept(top_n(2), ranking_key="ic") == {"d", "a"}
    assert kept(top_n(0)) == set()
    assert kept(top_n(9)) == {"a", "b", "c"}


def test_top_n_breaks_ties_by_id_whatever_the_order():
    tied = {model: {"score_recent": 1.0} for model in reversed(METRICS)}
    assert kept(top_n(2), tied) == {"a", "b"}


def test_top_n_before_anyone_is_ranked_keeps_the_first_by_id():
    assert kept(top_n(2), {}) == {"a", "b"}
    assert kept(top_n(2), {model: {"score_recent": None} for model in METRICS}) == {"a", "b"}


def test_top_n_counts_only_models_that_can_be_members():
    metrics = {**METRICS, "gone": {"score_recent": 9.0}, ENSEMBLE: {"score_recent": 8.0}}
    assert kept(top_n(1), metrics) == {"b"}


def test_top_n_alone_with_one_model():
    assert top_n(3)("a", {}) is True
    assert top_n(0)("a", {}) is False
    with pytest.raises(ValueError, match="0 or more"):
        top_n(-1)


def test_min_metric_keeps_what_is_above():
    assert kept(min_metric("ic", 0.2)) == {"a", "d"}
    assert kept(min_metric("score_recent", -1.0)) == {"a", "b", "c"}
    assert min_metric("ic", 0.0)("a", {"ic": math.nan}) is False


def test_an_operators_filter_is_asked_about_real_models_only():
    asked = []
    apply_model_filter(lambda model_id, metrics: asked.append((model_id, metrics)), {"a": {"ic": 1.0}}, PREDICTIONS)
    assert asked == [("a", {"ic": 1.0}), ("b", {}), ("c", {}), ("d", {})]


def test_build_averages_every_numeric_field_over_the_models_that_have_it():
    rows = {
        "a": [prediction(0, 1.0, inference_output={"value": 1.0, "size": 10, "label": "x", "sure": True})],
        "b": [prediction(0, 4.0, inference_output={"value": 4.0, "spread": math.nan, "size": None})],
        "c": [prediction(0, 100.0)],
    }
    (record,) = build_ensemble_predictions("main", {"a": 0.5, "b": 0.25, "d": 0.25}, rows)
    assert record.inference_output == pytest.approx({"value": 2.0, "size": 10.0})
    assert record.meta == {"ensemble": "main", "weights": pytest.approx({"a": 2 / 3, "b": 1 / 3})}


def test_build_pairs_by_input_and_scope_and_renormalises_over_those_present():
    rows = {
        "a": [prediction(2, 20.0), prediction(1, 10.0), prediction(1, 11.0, scope_key="ETH-60")],
        "b": [prediction(1, 40.0)],
    }
    records = build_ensemble_predictions("main", {"a": 0.75, "b": 0.25}, rows)
    values = {(record.input_id, record.scope_key): record.inference_output["value"] for record in records}
    assert values == pytest.approx({("i1", "BTC-60"): 17.5, ("i2", "BTC-60"): 20.0, ("i1", "ETH-60"): 11.0})


def test_built_records_take_over_what_the_members_say():
    closes = START + timedelta(seconds=60)
    rows = {
        "a": [prediction(1, 1.0)],
        "b": [prediction(1, 3.0, resolvable_at=closes, prediction_config_id="schedule")],
    }
    (record,) = build_ensemble_predictions("main", {"a": 1.0, "b": 1.0}, rows)
    assert record.model_id == "__ensemble_main__"
    assert record.status is PredictionStatus.PENDING
    assert record.scope == {"subject": "BTC"}
    assert record.scope is not rows["a"][0]["scope"]
    assert record.performed_at == START + timedelta(seconds=1)
    assert record.resolvable_at == closes
    assert record.prediction_config_id == "schedule"
    assert record.exec_time_ms == 0.0


def test_now_stands_in_for_a_missing_time():
    row = {"inference_output": {"value": 1.0}, "input_id": "i", "scope_key": "s"}
    (record,) = build_ensemble_predictions("main", {"a": 1.0}, {"a": [row]}, now=START)
    assert record.performed_at == START
    assert record.resolvable_at is None


def test_ids_are_the_same_each_time_and_differ_between_rows_and_ensembles():
    rows = {
        "a": [
            prediction(0, 1.0, input_id="x:y", scope_key="z"),
            prediction(0, 1.0, input_id="x", scope_key="y:z"),
            prediction(0, 1.0, input_id="x", scope_key="z"),
        ]
    }
    first = [record.id for record in build_ensemble_predictions("main", {"a": 1.0}, rows)]
    assert first == [record.id for record in build_ensemble_predictions("main", {"a": 0.3, "b": 0.7}, rows)]
    other = [record.id for record in build_ensemble_predictions("other", {"a": 1.0}, rows)]
    assert len({*first, *other}) == 6


def test_what_gives_no_prediction():
    unkeyed = {"inference_output": {"value": 1.0}, "performed_at": START}
    assert build_ensemble_predictions("main", {"a": 1.0}, {"a": [unkeyed]}) == []
    assert build_ensemble_predictions("main", {"a": 1.0}, {"a": [prediction(0, "up"), prediction(1, math.inf)]}) == []
    assert build_ensemble_predictions("main", {"a": 1.0}, {"b": said(1.0)}) == []
    assert build_ensemble_predictions("main", {"a": 0.0, "b": -1.0, "c": math.nan}, {m: said(1.0) for m in "abc"}) == []
    assert build_ensemble_predictions("main", {}, {"a": said(1.0)}) == []


def test_an_ensemble_is_never_a_member_of_another():
    rows = {"a": said(1.0), ENSEMBLE: said(9.0)}
    (record,) = build_ensemble_predictions("main", {"a": 0.5, ENSEMBLE: 0.5}, rows)
    assert record.inference_output == {"value": 1.0}
    assert record.meta["weights"] == {"a": 1.0}


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.dictionaries(st.integers(0, 4), st.floats(-1e6, 1e6), max_size=5), min_size=1
    ),
    st.fixed_dictionaries({model: st.sampled_from([0.0, 0.1, 0.5, 2.0]) for model in "abcd"}),
)
def test_build_agrees_with_a_naive_average(values, weights):
    rows = {model: [prediction(index, value) for index, value in mine.items()] for model, mine in values.items()}
    built = build_ensemble_predictions("main", weights, rows)
    expected = {}
    for index in range(5):
        members = {model: mine[index] for model, mine in values.items() if index in mine and weights[model] > 0}
        if members:
            total = sum(weights[model] for model in members)
            expected[f"i{index}"] = sum(weights[model] * value for model, value in members.items()) / total
    averages = {record.input_id: record.inference_output["value"] for record in built}
    assert len(built) == len(averages)
    assert averages == pytest.approx(expected, rel=1e-9, abs=1e-6)
