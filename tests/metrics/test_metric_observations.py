"""How lists of dicts become the aligned table."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from coordinator_node.metrics import MetricsContext, MetricsRegistry
from coordinator_node.metrics.observations import observation_table

START = datetime(2026, 1, 1, tzinfo=UTC)


def prediction(index, value, **more):
    key = {"input_id": f"i{index}", "scope_key": "BTC-60"}
    at = START + timedelta(seconds=index)
    return {"inference_output": {"value": value}, "performed_at": at, "scope": {}, **key, **more}


def score(index, value, actual_return, **more):
    result = {"value": value, "actual_return": actual_return}
    return {"result": result, "scored_at": START, "input_id": f"i{index}", "scope_key": "BTC-60", **more}


def bare(row):
    return {key: value for key, value in row.items() if key not in ("input_id", "scope_key")}


def test_aligned_lists_without_keys_are_paired_by_position():
    table = observation_table(
        [bare(prediction(i, float(i))) for i in range(3)],
        [bare(score(i, 10.0 * i, 0.1 * i)) for i in range(3)],
        MetricsContext("m"),
    )
    np.testing.assert_array_equal(table.signals, [[0.0, 1.0, 2.0]])
    np.testing.assert_array_equal(table.scores, [[0.0, 10.0, 20.0]])


def test_lists_of_different_lengths_are_paired_by_key():
    table = observation_table(
        [prediction(i, float(i)) for i in range(3)], [score(2, 20.0, 0.2), score(0, 0.5, 0.0)], MetricsContext("m")
    )
    np.testing.assert_array_equal(table.signals, [[0.0, 1.0, 2.0]])
    np.testing.assert_array_equal(table.scores, [[0.5, np.nan, 20.0]])
    np.testing.assert_array_equal(table.returns, [[0.0, np.nan, 0.2]])


def test_lists_of_one_length_whose_keys_differ_are_paired_by_key():
    table = observation_table(
        [prediction(0, 0.0), prediction(1, 1.0)], [score(1, 10.0, 0.1), score(7, 70.0, 0.7)], MetricsContext("m")
    )
    np.testing.assert_array_equal(table.scores, [[np.nan, 10.0]])


def test_lists_of_different_lengths_without_keys_have_no_outcomes():
    table = observation_table(
        [bare(prediction(0, 0.0)), bare(prediction(1, 1.0))], [bare(score(1, 10.0, 0.1))], MetricsContext("m")
    )
    assert np.isnan(table.scores).all()
    assert np.isnan(table.returns).all()


def test_a_failed_score_has_no_value_and_no_return():
    failed = score(1, 5.0, 0.5)
    failed["result"]["success"] = False
    table = observation_table(
        [prediction(0, 0.0), prediction(1, 1.0)], [score(0, 1.0, 0.1), failed], MetricsContext("m")
    )
    np.testing.assert_array_equal(table.scores, [[1.0, np.nan]])
    np.testing.assert_array_equal(table.returns, [[0.1, np.nan]])


def test_the_return_may_be_the_ground_truths():
    rows = [{**score(0, 1.0, 0.0), "result": {"value": 1.0}, "ground_truth": {"profit": 0.25}}]
    table = observation_table([prediction(0, 0.0)], rows, MetricsContext("m"))
    np.testing.assert_array_equal(table.returns, [[0.25]])


def test_columns_are_in_time_order_and_include_what_only_others_said():
    context = MetricsContext("m", all_model_predictions={"other": [prediction(0, 5.0), prediction(2, 6.0)]})
    table = observation_table([prediction(3, 3.0), prediction(1, 1.0)], [], context)
    assert table.model_ids == ("m", "other")
    np.testing.assert_array_equal(table.signals, [[np.nan, 1.0, np.nan, 3.0], [5.0, np.nan, 6.0, np.nan]])


def test_naive_times_are_read_as_utc():
    early = prediction(0, 1.0, performed_at=datetime(2026, 1, 1, 0, 0, 5))  # noqa: DTZ001 -- naive on purpose
    table = observation_table([prediction(9, 2.0), early], [], MetricsContext("m"))
    np.testing.assert_array_equal(table.signals, [[1.0, 2.0]])


def test_without_times_the_order_of_the_list_holds():
    rows = [
        {"inference_output": {"value": value}, "input_id": name, "scope_key": "s"}
        for name, value in [("b", 1), ("a", 2)]
    ]
    np.testing.assert_array_equal(observation_table(rows, [], MetricsContext("m")).signals, [[1.0, 2.0]])


def test_the_model_itself_and_ensembles_are_not_among_the_others():
    rows = [prediction(i, float(i)) for i in range(4)]
    context = MetricsContext("m", all_model_predictions={"m": rows, "__ensemble_main__": rows, "other": rows})
    assert observation_table(rows, [], context).model_ids == ("m", "other")


def test_of_two_predictions_with_one_key_the_first_counts():
    rows = [prediction(0, 1.0), prediction(0, 9.0)]
    table = observation_table(rows, [score(0, 1.0, 0.1), score(0, 9.0, 0.9)], MetricsContext("m"))
    np.testing.assert_array_equal(table.signals, [[1.0]])
    np.testing.assert_array_equal(table.returns, [[0.1]])


def test_models_are_never_paired_by_position():
    mine = [prediction(i, float(i)) for i in range(5)]
    others = [prediction(i + 100, float(i)) for i in range(5)]
    unkeyed = [bare(row) for row in mine]
    context = MetricsContext("m", all_model_predictions={"elsewhere": others, "unkeyed": unkeyed})
    assert MetricsRegistry().compute(["model_correlation"], mine, [], context) == {}


def test_the_first_ensemble_is_the_one_compared_with():
    mine = [prediction(i, float(i)) for i in range(5)]
    falling = [prediction(i, -float(i)) for i in range(5)]
    context = MetricsContext("m", ensemble_predictions={"first": falling, "second": mine})
    assert MetricsRegistry().compute(["ensemble_correlation"], mine, [], context) == {
        "ensemble_correlation": pytest.approx(-1.0)
    }


def test_nothing_at_all_gives_no_metric():
    registry = MetricsRegistry()
    assert registry.compute(registry.available(), [], [], MetricsContext("m")) == {}
