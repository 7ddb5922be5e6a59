"""What models are called with, what is reported of them, and an orchestrator that goes away and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from model_cluster import ModelCluster, ModelNode, NoSuchMethodError, steady
from model_runner_client.grpc.generated.dynamic_subclass_pb2_grpc import DynamicSubclassServiceStub
from predict_cases import UNBALANCED, called, rows, store_prices, until_rows
from sqlalchemy import Engine
from structlog.testing import capture_logs
from test_predict import CONFIG, answering, hang, predicting, raise_it

from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig, ScheduledPrediction
from coordinator_node.db.engine import transaction
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.times import utc_now
from coordinator_node.services.feed_data.store import store_records
from coordinator_node.services.predict.model_nodes import ModelCallError, call_model, make_call

ARGUMENTS = CallMethodConfig(
    method="infer",
    tick_method="feed_update",
    args=[
        CallMethodArg(name="subject", type="STRING"),
        CallMethodArg(name="resolve_horizon_seconds", type="INT"),
        CallMethodArg(name="strike", type="FLOAT"),
        CallMethodArg(name="legs", type="JSON"),
    ],
)
LEGS = [{"side": "buy", "size": 1.5}, None]


def asking(subject: str, horizon: int, offset: float) -> ScheduledPrediction:
    return ScheduledPrediction(
        scope_key=f"{subject}-{horizon}",
        scope={"subject": subject, "strike": 2.5, "legs": LEGS},
        prediction_interval_seconds=2,
        resolve_horizon_seconds=horizon,
        meta={"offset_seconds": offset, "deadline_seconds": 1.5},
    )


async def names_its_base(method: str, arguments: list[Any]) -> Any:
    return {"value": 0.5} if method == "infer" else None


async def test_several_subjects_horizons_and_phases_with_arguments_of_every_type(engine: Engine) -> None:
    config = CrunchConfig(
        call_method=ARGUMENTS, scheduled_predictions=[asking("BTC", 30, 0), asking("ETH", 30, 1), asking("BTC", 60, 1)]
    )
    for subject in ("BTC", "ETH"):
        record = FeedRecord("simulated", subject, "tick", "1s", utc_now() - timedelta(seconds=1), {"price": 100.0})
        with transaction(engine) as session:
            store_records(session, [record], utc_now())
    scopes = "SELECT DISTINCT scope_key FROM predictions WHERE status = 'PENDING'"
    settings = {"feed_subjects": "BTC,ETH", "model_base_classname": "cruncher.ModelBaseClass"}
    async with ModelCluster(a=names_its_base) as cluster:
        async with predicting(engine, cluster, config, **settings):
            await until_rows(engine, scopes, lambda found: len(found) == 3)
        node = cluster.nodes["a"]
    assert set(node.setups) == {"cruncher.ModelBaseClass"}
    assert {method for method, _ in node.calls} == {"feed_update", "infer"}
    assert {arguments[0]["symbol"] for method, arguments in node.calls if method == "feed_update"} == {"BTC", "ETH"}
    asked = [tuple(arguments[:3]) for method, arguments in node.calls if method == "infer"]
    assert set(asked) == {("BTC", 30, 2.5), ("ETH", 30, 2.5), ("BTC", 60, 2.5)}
    assert all(arguments[3] == LEGS for method, arguments in node.calls if method == "infer")
    phases = rows(
        engine, "SELECT DISTINCT scope_key, extract(epoch FROM performed_at)::int % 2 AS phase FROM predictions"
    )
    assert {(row.scope_key, row.phase) for row in phases} == {("BTC-30", 0), ("ETH-30", 1), ("BTC-60", 1)}
    stored = rows(engine, "SELECT raw_data_jsonb FROM inputs")
    assert {frozenset(row.raw_data_jsonb["subjects"]) for row in stored} == {frozenset({"BTC", "ETH"})}


async def lacks_the_method(method: str, arguments: list[Any]) -> Any:
    raise NoSuchMethodError(f"no method {method}")


QUICK = CONFIG.model_copy(
    update={
        "scheduled_predictions": [
            CONFIG.scheduled_predictions[0].model_copy(update={"meta": {"deadline_seconds": 0.3}})
        ]
    }
)


@pytest.mark.parametrize("report", [True, False])
async def test_what_is_reported_of_models_is_a_setting(engine: Engine, report: bool) -> None:
    store_prices(engine, utc_now())
    limits = {"model_runner_max_consecutive_timeouts": 1, "model_runner_max_consecutive_failures": 1}
    models = {"hangs": hang, "raises": raise_it, "lacks": lacks_the_method, "good": steady}
    async with ModelCluster(**models) as cluster:
        async with predicting(engine, cluster, QUICK, **limits, model_runner_report_failure=report):
            failed = "SELECT model_id FROM predictions WHERE status <> 'PENDING' GROUP BY model_id HAVING count(*) > 2"
            await until_rows(engine, failed, lambda found: len(found) == 3)
        reported = {(r["model_id"], r["failure_code"]) for r in cluster.reports}
    expected = {("hangs", "MULTIPLE_TIMEOUT"), ("raises", "MULTIPLE_FAILED"), ("lacks", "BAD_IMPLEMENTATION")}
    assert reported == (expected if report else set())
    assert {row.status for row in rows(engine, "SELECT status FROM predictions WHERE model_id = 'good'")} == {"PENDING"}


async def test_an_orchestrator_that_goes_away_costs_nothing_and_is_followed_when_it_is_back(engine: Engine) -> None:
    store_prices(engine, utc_now())
    async with ModelCluster(a=steady) as cluster:
        with capture_logs() as logs:
            async with predicting(engine, cluster):
                await called(engine, 1)
                await cluster.close_orchestrator()
                before = len(rows(engine, "SELECT 1 FROM prediction_slots WHERE status = 'CALLED'"))
                await called(engine, before + 2)
                cluster.nodes["b"] = ModelNode("b")
                await cluster.nodes["b"].start()
                await cluster.open_orchestrator()
                await until_rows(engine, "SELECT 1 FROM predictions WHERE model_id = 'b' AND status = 'PENDING'", bool)
    assert {row.status for row in rows(engine, "SELECT status FROM predictions")} == {"PENDING"}
    assert rows(engine, UNBALANCED) == []
    assert any("waiting for the model orchestrator" in log["event"] for log in logs)
    changed = rows(engine, "SELECT updated_at = created_at AS same FROM models WHERE id = 'a'")
    assert [row.same for row in changed] == [True], "its row is written only when something changed"


async def test_a_call_to_a_model_that_was_let_go_is_no_fault_of_the_program() -> None:
    node = ModelNode("a")
    await node.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{node.port}")
    runner = SimpleNamespace(grpc_stub=DynamicSubclassServiceStub(channel))
    call = make_call("predict", [])
    assert await call_model(runner, call, 10.0) == {"value": 0.5}
    await channel.close()
    with pytest.raises(ModelCallError, match="the model went away"):
        await call_model(runner, call, 10.0)
    await node.stop()


def newest_close(call: tuple[str, list[Any]]) -> float:
    """The last price that a tick told of."""
    close: float = call[1][0]["candles_1m"][-1]["close"]
    return close


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_model_busy_with_a_tick_gets_the_newest_one_next_and_none_between(engine: Engine) -> None:
    store_prices(engine, utc_now())
    released = asyncio.Event()

    async def waits_in_its_first_tick(method: str, arguments: list[Any]) -> Any:
        await released.wait()
        return {"value": 0.5}

    config = CrunchConfig(scheduled_predictions=[])
    async with ModelCluster(slow=waits_in_its_first_tick, quick=steady) as cluster:
        slow, quick = (cluster.nodes[name].calls for name in ("slow", "quick"))
        async with predicting(engine, cluster, config):
            await until(lambda: bool(slow))
            for price in (1.0, 2.0, 3.0):
                with transaction(engine) as session:
                    record = FeedRecord("simulated", "BTC", "tick", "1s", utc_now(), {"price": price})
                    store_records(session, [record], utc_now())
                await until(lambda price=price: bool(quick) and newest_close(quick[-1]) == price)
            assert len(slow) == 1
            released.set()
            await until(lambda: len(slow) == 2)
    assert [newest_close(call) for call in slow[1:]] == [3.0]
    assert {method for method, _ in slow} == {"tick"}


class Broken:
    """What the operator's callables below do wrong at the moment."""

    builder = True


def build(raw: dict[str, Any]) -> dict[str, Any]:
    """An INFERENCE_INPUT_BUILDER."""
    if Broken.builder:
        raise SystemExit("no model file")
    return {"symbol": raw["symbol"], "last": raw["candles_1m"][-1]["close"]}


def validate(output: dict[str, Any]) -> dict[str, Any] | None:
    """An INFERENCE_OUTPUT_VALIDATOR that refuses what is above 1, and cannot cope with what is negative."""
    if output["value"] < 0:
        raise RuntimeError("cannot cope")
    return {**output, "checked": True} if output["value"] <= 1 else None


async def test_an_operators_callables_cost_slots_and_rows_but_never_the_worker(engine: Engine) -> None:
    store_prices(engine, utc_now())
    Broken.builder = True
    callables = {
        "inference_input_builder": f"{__name__}:build",
        "inference_output_validator": f"{__name__}:validate",
    }
    models = {"good": steady, "above": answering({"value": 2.0}), "below": answering({"value": -1.0})}
    async with ModelCluster(**models) as cluster:
        async with predicting(engine, cluster, **callables):
            missed = "SELECT DISTINCT reason FROM prediction_slots WHERE status = 'MISSED' AND reason LIKE 'input%'"
            found = await until_rows(engine, missed, bool)
            assert [row.reason for row in found] == ["input of BTC: SystemExit: no model file"]
            Broken.builder = False
            await called(engine, 1)
        ticks = [arguments[0] for method, arguments in cluster.nodes["good"].calls if method == "tick"]
    assert ticks[0] == {"symbol": "BTC", "last": 100.0}
    stored = rows(
        engine, "SELECT DISTINCT model_id, status, failed_reason, inference_output_jsonb AS output FROM predictions"
    )
    assert {row.model_id: (row.status, row.failed_reason, row.output) for row in stored} == {
        "good": ("PENDING", None, {"value": 0.5, "checked": True}),
        "above": ("FAILED", "refused by the output validator: {'value': 2.0}", {}),
        "below": ("FAILED", "refused by the output validator: RuntimeError: cannot cope", {}),
    }
