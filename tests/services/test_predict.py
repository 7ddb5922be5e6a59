"""The predict stage against real model nodes: every model of every due slot ends in exactly one row."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import builders
import pandas as pd
from model_cluster import Behaviour, ModelCluster, ModelRaisedError, steady
from predict_cases import CALLED, UNBALANCED, called, rows, store_prices, until_rows
from pydantic import field_validator
from sqlalchemy import Engine, text

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, InferenceOutput, ScheduledPrediction
from coordinator_node.entities.times import utc_now
from coordinator_node.runtime.heartbeat import Heartbeat
from coordinator_node.runtime.leases import LeaseGroup
from coordinator_node.runtime.loop import run_loop
from coordinator_node.services.predict.service import PredictService
from coordinator_node.services.predict.shards import SHARD_NAMES, Shards
from coordinator_node.services.score import ScoreStage

INTERVAL = 1
CONFIG = CrunchConfig(
    scheduled_predictions=[
        ScheduledPrediction(
            scope_key="BTC-30",
            scope={"subject": "BTC"},
            prediction_interval_seconds=INTERVAL,
            resolve_horizon_seconds=30,
            meta={"deadline_seconds": 2},
        )
    ]
)


def settings_for(cluster: ModelCluster, **more: Any) -> Settings:
    return Settings(
        feed_source="simulated",
        model_runner_node_host="127.0.0.1",
        model_runner_node_port=cluster.port,
        **{"model_runner_timeout_seconds": 5, **more},
    )


@asynccontextmanager
async def predicting(
    engine: Engine,
    cluster: ModelCluster,
    config: CrunchConfig = CONFIG,
    clock: Callable[[], datetime] = utc_now,
    **more: Any,
) -> AsyncIterator[asyncio.Event]:
    """A predict worker's stage running in this loop; setting the event drains it."""
    heartbeat = Heartbeat(engine, "predict")
    group = LeaseGroup(engine, SHARD_NAMES, heartbeat.worker_id, seconds=2.0)
    stop, wake = asyncio.Event(), asyncio.Event()
    shards = Shards(engine, group, "predict", wake.set)
    failures: list[BaseException] = []
    beside: list[asyncio.Task[None]] = []

    def background(work: Coroutine[Any, Any, None]) -> None:
        beside.append(asyncio.create_task(work))

    service = PredictService(engine, config, settings_for(cluster, **more), shards, clock, wake.set, background)

    def report(outcome: object) -> None:
        if isinstance(outcome, BaseException):
            failures.append(outcome)

    async def beat() -> None:
        while True:
            await asyncio.to_thread(heartbeat.beat)
            await asyncio.sleep(0.5)

    async def work() -> None:
        await asyncio.to_thread(heartbeat.beat)
        background(beat())
        background(shards.run())
        service.start()
        await run_loop(service.step, stop=stop, wake=wake, interval_seconds=0.2, report=report)
        await service.close()
        for task in beside:
            task.cancel()
        ended = await asyncio.gather(*beside, return_exceptions=True)
        failures.extend(e for e in ended if isinstance(e, Exception))
        await asyncio.to_thread(group.release)
        await asyncio.to_thread(heartbeat.remove)

    working = asyncio.create_task(work())
    try:
        yield stop
    finally:
        stop.set()
        await working
    assert not failures


async def test_each_model_is_given_the_window_and_asked_once_a_slot(engine: Engine) -> None:
    store_prices(engine, utc_now())
    async with ModelCluster(a=steady, b=steady) as cluster:
        async with predicting(engine, cluster):
            await called(engine, 2)
        node = cluster.nodes["a"]
        assert node.calls[0][0] == "tick"
        given = node.calls[0][1][0]
        assert given["symbol"] == "BTC"
        assert [candle["close"] for candle in given["candles_1m"]][-2:] == [101.0, 100.0]
        assert isinstance(given["asof_ts"], int)
        assert node.predicts()[0] == ["BTC", 30, 15]
    slots = rows(engine, CALLED)
    assert len(node.predicts()) == len(slots)
    assert rows(engine, UNBALANCED) == []
    stored = rows(engine, "SELECT * FROM predictions")
    assert {p.status for p in stored} == {"PENDING"}
    for p in stored:
        assert p.inference_output_jsonb == {"value": 0.5}
        assert p.resolvable_at - p.performed_at == timedelta(seconds=30)
        assert timedelta(0) <= p.answered_at - p.performed_at <= timedelta(seconds=2)
        assert 0 < p.exec_time_ms <= 2000
        assert p.scope_jsonb["subject"] == "BTC"
    model = rows(engine, "SELECT * FROM models WHERE id = 'a'")[0]
    assert (model.name, model.player_id, model.presence) == ("name of a", "cruncher-a", "PRESENT")
    assert model.meta_jsonb["cruncher_wallet_pubkey"] == "wallet-a"
    inputs = rows(engine, "SELECT * FROM inputs")
    assert len(inputs) == len(slots)
    assert {i.status for i in inputs} == {"RECEIVED"}


async def hang(method: str, arguments: list[Any]) -> Any:
    if method == "predict":
        await asyncio.sleep(30)


async def hang_in_tick(method: str, arguments: list[Any]) -> Any:
    await asyncio.sleep(30)


async def raise_it(method: str, arguments: list[Any]) -> Any:
    if method == "predict":
        raise ModelRaisedError("ZeroDivisionError: no volume")


def answering(answer: Any) -> Behaviour:
    async def behave(method: str, arguments: list[Any]) -> Any:
        return answer if method == "predict" else None

    return behave


async def late(method: str, arguments: list[Any]) -> Any:
    """Answers when the deadline has passed, whether or not anybody waits."""
    if method == "predict":
        await asyncio.shield(asyncio.sleep(2.1))
    return {"value": 0.5}


def check_healthy_are_scored(engine: Engine, healthy: set[str], until: datetime) -> None:
    """The score stage gives every healthy model a score in every slot that was called."""
    config = CONFIG.model_copy(update={"scoring_function": lambda prediction, truth: {"value": prediction["value"]}})
    stage = ScoreStage(engine, config, builders.settings_of())
    while stage.run_once(until).counts:
        pass
    scored = rows(
        engine, "SELECT model_id, count(*) AS slots FROM predictions WHERE status = 'SCORED' GROUP BY model_id"
    )
    assert {row.model_id: row.slots for row in scored} == dict.fromkeys(healthy, len(rows(engine, CALLED)))


async def test_a_bad_model_costs_only_itself(engine: Engine) -> None:
    later = utc_now() + timedelta(minutes=2)
    store_prices(engine, later, count=200)
    behaviours = {
        "good": steady,
        "number": answering(0.25),
        "boolean": answering(True),
        "frame": answering(pd.DataFrame({"value": [0.75]})),
        "late": late,
        "dies": steady,
        "hangs": hang,
        "hangs_in_tick": hang_in_tick,
        "raises": raise_it,
        "wrong": answering({"direction": "up"}),
        "text": answering("up"),
        "not_finite": answering({"value": float("nan")}),
        "deep_nan": answering({"value": 1.0, "more": {"x": [1.0, float("inf")]}}),
        "nul": answering({"value": 1.0, "note": "a\x00b"}),
        "surrogate": answering({"value": 1.0, "note": "\ud800"}),
        "huge": answering({"value": 1.0, "note": "x" * 5_000_000}),
        "large": answering({"value": 1.0, "note": "x" * 1_200_000}),
        "unpacks": answering(pd.DataFrame({"value": [0.0] * 200_000})),
    }
    async with ModelCluster(**behaviours) as cluster, predicting(engine, cluster):
        await called(engine, 1)
        await cluster.nodes["dies"].stop()
        died = len(rows(engine, CALLED))
        await called(engine, died + 2)
    assert rows(engine, UNBALANCED) == []
    by_model: dict[str, set[tuple[str, str]]] = {}
    for p in rows(engine, "SELECT model_id, status, failed_reason FROM predictions"):
        by_model.setdefault(p.model_id, set()).add((p.status, (p.failed_reason or "")[:24]))
    for name in ("good", "number", "boolean", "frame"):
        assert by_model[name] == {("PENDING", "")}, name
    assert by_model["late"] == {("FAILED", "timeout")}
    assert {reason.split(":")[0] for status, reason in by_model["dies"] if status == "FAILED"} == {"UNAVAILABLE"}
    assert by_model["hangs_in_tick"] == {("FAILED", "timeout")}
    assert ("FAILED", "timeout") in by_model["hangs"]
    assert by_model["raises"] == {("FAILED", "FAILED: ZeroDivisionErro")}
    for name in ("wrong", "text"):
        assert by_model[name] == {("FAILED", next(iter(by_model[name]))[1])}
        assert next(iter(by_model[name]))[1].startswith("wrong shape: ")
    assert by_model["not_finite"] == {("FAILED", "answer.value is nan in {")}
    assert by_model["deep_nan"] == {("FAILED", "answer.more.x[1] is inf "[:24])}
    assert by_model["nul"] == {("FAILED", "answer.note holds text t")}
    assert by_model["surrogate"] == {("FAILED", "answer.note holds text t")}
    assert {status for status, _ in by_model["huge"]} == {"FAILED"}
    assert {reason for _, reason in by_model["large"]} == {"answer of 1200026 bytes "}
    shown = "SELECT 1 FROM predictions WHERE failed_reason LIKE '%1048576: begins b%note%xxxx%'"
    assert len(rows(engine, shown)) == len(rows(engine, CALLED))
    assert {reason for _, reason in by_model["unpacks"]} == {"answer cannot be decoded"}
    with engine.begin() as connection:  # its answers of before are scored too, and not of every slot
        connection.execute(text("UPDATE predictions SET status = 'FAILED' WHERE model_id = 'dies'"))
    check_healthy_are_scored(engine, {"good", "number", "boolean", "frame"}, later)


async def test_a_model_that_left_is_absent_and_one_that_comes_back_is_ticked_first(engine: Engine) -> None:
    store_prices(engine, utc_now())
    async with ModelCluster(stays=steady, leaves=steady) as cluster, predicting(engine, cluster):
        await called(engine, 1)
        await cluster.update("leaves", "STOPPED")
        absent = "SELECT * FROM predictions WHERE status = 'ABSENT'"
        found = await until_rows(engine, absent, bool)
        assert {p.model_id for p in found} == {"leaves"}
        before = len(cluster.nodes["leaves"].calls)
        await cluster.update("leaves", "RUNNING")
        query = f"SELECT 1 FROM predictions WHERE model_id = 'leaves' AND performed_at > '{found[-1].performed_at}'"
        await until_rows(engine, f"{query} AND status = 'PENDING'", bool)
        assert cluster.nodes["leaves"].calls[before][0] == "tick"
    assert rows(engine, UNBALANCED) == []


async def test_slots_that_nobody_could_call_are_missed_with_the_reason(engine: Engine) -> None:
    async with ModelCluster(a=steady) as cluster, predicting(engine, cluster):
        missed = "SELECT * FROM prediction_slots WHERE status = 'MISSED'"
        found = await until_rows(engine, missed, lambda m: len(m) >= 2)
        assert {m.reason for m in found} == {"no feed record is known"}
        assert {m.input_id for m in found} == {None}
        store_prices(engine, utc_now())
        await called(engine, 1)
    grid = rows(engine, "SELECT slot_at FROM prediction_slots ORDER BY slot_at")
    gaps = {b.slot_at - a.slot_at for a, b in itertools.pairwise(grid)}
    assert gaps == {timedelta(seconds=INTERVAL)}


async def test_what_a_dead_caller_left_ends_as_interrupted_and_its_downtime_as_missed(engine: Engine) -> None:
    store_prices(engine, utc_now())
    async with ModelCluster(a=steady, b=steady) as cluster:
        async with predicting(engine, cluster):
            await called(engine, 1)
        died_at = utc_now() - timedelta(seconds=20)
        with engine.begin() as connection:
            connection.execute(text("UPDATE scheduled_prediction_configs SET activated_at = :t"), {"t": died_at})
            connection.execute(text("DELETE FROM predictions WHERE model_id = 'b'"))
            connection.execute(text("UPDATE slot_calls SET closed_at = NULL"))
            for table in ("predictions", "prediction_slots"):
                column = "performed_at" if table == "predictions" else "slot_at"
                connection.execute(text(f"UPDATE {table} SET {column} = {column} - interval '20 seconds'"))
        left = len(rows(engine, CALLED))
        async with predicting(engine, cluster):
            await called(engine, left + 1)
    interrupted = rows(engine, "SELECT * FROM predictions WHERE failed_reason = 'interrupted'")
    assert len(interrupted) == left
    assert {p.model_id for p in interrupted} == {"b"}
    for p in interrupted:
        assert p.resolvable_at - p.performed_at == timedelta(seconds=30)
    assert rows(engine, "SELECT 1 FROM slot_calls WHERE closed_at IS NULL") == []
    late = rows(engine, "SELECT reason FROM prediction_slots WHERE status = 'MISSED'")
    assert len(late) >= 15
    assert all(m.reason.startswith(("too late", "the model orchestrator")) for m in late)


async def test_two_workers_at_once_make_no_double_and_no_gap(engine: Engine, database_url: str, connect: Any) -> None:
    store_prices(engine, utc_now())
    other = connect(database_url)
    async with ModelCluster(a=steady, b=steady, c=steady) as cluster:
        async with predicting(engine, cluster) as stop_first:
            await called(engine, 1)
            async with predicting(other, cluster):
                await called(engine, 3)
                stop_first.set()
                at_stop = len(rows(engine, CALLED))
                await called(engine, at_stop + 2)
        slots = rows(engine, CALLED)
        for node in cluster.nodes.values():
            assert len(node.predicts()) == len(slots)
    assert rows(engine, UNBALANCED) == []
    assert {p.status for p in rows(engine, "SELECT status FROM predictions")} == {"PENDING"}
    grid = rows(engine, "SELECT slot_at FROM prediction_slots ORDER BY slot_at")
    assert {b.slot_at - a.slot_at for a, b in itertools.pairwise(grid)} == {timedelta(seconds=INTERVAL)}


async def test_a_model_that_keeps_failing_is_reported_to_the_orchestrator(engine: Engine) -> None:
    store_prices(engine, utc_now())
    async with ModelCluster(raises=raise_it, good=steady) as cluster:
        async with predicting(engine, cluster, model_runner_max_consecutive_failures=1):
            await called(engine, 4)
        assert [(r["model_id"], r["failure_code"]) for r in cluster.reports] == [("raises", "MULTIPLE_FAILED")]
        assert "no volume" in cluster.reports[0]["failure_reason"]


async def test_the_orchestrator_may_come_late(engine: Engine) -> None:
    store_prices(engine, utc_now())
    cluster = ModelCluster(a=steady)
    async with cluster:
        port = cluster.port
    cluster.nodes["a"] = type(cluster.nodes["a"])("a")
    cluster.port = port
    async with predicting(engine, cluster):
        missed = "SELECT reason FROM prediction_slots WHERE status = 'MISSED'"
        found = await until_rows(engine, missed, bool)
        assert found[0].reason == "the model orchestrator has not been reached"


class Picky(InferenceOutput):
    """An output type whose own check breaks on some answers."""

    @field_validator("value")
    @classmethod
    def _known(cls, value: float) -> float:
        return {0.5: value}[value]


async def slow_in_tick(method: str, arguments: list[Any]) -> Any:
    await asyncio.sleep(0.3)
    return {"value": 0.5}


async def test_what_strangers_and_operators_get_wrong_costs_one_row(engine: Engine) -> None:
    config = CONFIG.model_copy(update={"output_type": Picky})
    cluster = ModelCluster(
        good=steady, breaks_the_type=answering({"value": 0.75}), strange_infos=steady, slow=slow_in_tick
    )
    cluster.nodes["strange_infos"].infos = {"cruncher_name": "a\x00b", "note": float("nan"), "\x00": 1}
    store_prices(engine, utc_now())
    async with cluster, predicting(engine, cluster, config):
        for age in range(25):  # new input faster than the slow model takes it
            store_prices(engine, utc_now() + timedelta(milliseconds=age), count=1)
            await asyncio.sleep(0.1)
        await called(engine, 3)
    assert rows(engine, UNBALANCED) == []
    statuses = {(p.model_id, p.status) for p in rows(engine, "SELECT DISTINCT model_id, status FROM predictions")}
    assert statuses == {
        ("good", "PENDING"),
        ("strange_infos", "PENDING"),
        ("slow", "PENDING"),
        ("breaks_the_type", "FAILED"),
    }
    reasons = {p.failed_reason for p in rows(engine, "SELECT failed_reason FROM predictions WHERE status = 'FAILED'")}
    assert reasons == {"the answer could not be read: KeyError: 0.75"}
    stranger = rows(engine, "SELECT * FROM models WHERE id = 'strange_infos'")[0]
    assert stranger.player_name == "a\ufffdb"
    assert "note" not in stranger.meta_jsonb


async def test_a_restart_told_in_one_burst_does_not_lose_the_model(engine: Engine) -> None:
    store_prices(engine, utc_now())
    async with ModelCluster(a=steady) as cluster, predicting(engine, cluster):
        await called(engine, 1)
        await cluster.update("a", "STOPPED", "RUNNING", "RECOVERING", "RUNNING")
        since = await asyncio.to_thread(utc_now)
        query = (
            f"SELECT 1 FROM predictions WHERE status = 'PENDING' AND performed_at > '{since + timedelta(seconds=2)}'"
        )
        await until_rows(engine, query, bool)


async def test_a_clock_that_jumped_ahead_writes_no_slots_of_the_future(engine: Engine) -> None:
    store_prices(engine, utc_now())
    jump = timedelta(0)
    async with ModelCluster(a=steady) as cluster, predicting(engine, cluster, clock=lambda: utc_now() + jump):
        await called(engine, 1)
        jump = timedelta(hours=1)
        await asyncio.sleep(0.2)
        jump = timedelta(0)
        before = len(rows(engine, CALLED))
        await called(engine, before + 2)
    assert rows(engine, "SELECT 1 FROM prediction_slots WHERE slot_at > now()") == []
