"""What workers count, and the two ways by which it is seen."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from coordinator_node.config.settings import load_settings
from coordinator_node.runtime import metrics
from coordinator_node.runtime.heartbeat import Heartbeat
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.metrics import REGISTRY, count_failure, exposition, measured, samples
from coordinator_node.runtime.worker import Worker

Connect = Callable[[str], Engine]


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def values(text: bytes, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


def test_passes_rows_failures_and_seconds_are_counted() -> None:
    results: list[Any] = [
        PassResult({"scored": 5, "failed": 0}),
        PassResult(),
        ValueError("text that differs each time"),
        PassResult({"scored": 2}),
    ]

    async def step() -> PassResult:
        result = results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    async def run() -> None:
        counted = measured("counted", step)
        await counted()
        await counted()
        with pytest.raises(ValueError, match="differs"):
            await counted()
        await counted()

    asyncio.run(run())
    passes = {
        outcome: value("coordinator_stage_passes_total", stage="counted", outcome=outcome)
        for outcome in ("worked", "idle", "failed")
    }
    assert passes == {"worked": 2.0, "idle": 1.0, "failed": 1.0}
    assert value("coordinator_stage_rows_total", stage="counted", what="scored") == 7.0
    assert REGISTRY.get_sample_value("coordinator_stage_rows_total", {"stage": "counted", "what": "failed"}) is None
    assert value("coordinator_stage_failures_total", stage="counted", reason="ValueError") == 1.0
    assert value("coordinator_stage_pass_seconds_count", stage="counted") == 4.0
    assert value("coordinator_stage_pass_seconds_bucket", stage="counted", le="+Inf") == 4.0


def test_reasons_are_kinds_and_their_number_is_bounded() -> None:
    count_failure("bounded", "KeyError: 'x'", 2)
    count_failure("bounded", "KeyError: 'y'")
    count_failure("bounded", "")
    for number in range(metrics.MOST_REASONS + 20):
        count_failure("bounded", f"made up {number}")
    count_failure("bounded", "x" * 1000)
    assert value("coordinator_stage_failures_total", stage="bounded", reason="KeyError") == 3.0
    found = values(exposition(), "coordinator_stage_failures_total")
    reasons = [dict(labels)["reason"] for labels in found if dict(labels)["stage"] == "bounded"]
    assert len(reasons) == metrics.MOST_REASONS
    assert max(map(len, reasons)) <= metrics.MOST_REASON_CHARACTERS
    assert value("coordinator_stage_failures_total", stage="bounded", reason="other") == 24.0


def test_other_workers_figures_stand_beside_each_other_under_one_name() -> None:
    count_failure("beside", "timeout", 1)
    theirs = {
        "coordinator_stage_failures": [
            ("coordinator_stage_failures_total", {"stage": "beside", "reason": "timeout"}, 5.0)
        ]
    }
    unknown: metrics.Samples = {"coordinator_of_a_later_version": [("coordinator_of_a_later_version", {}, 1.0)]}
    text = exposition([("score-1", theirs), ("score-2", theirs), ("score-3", unknown)])
    assert text.count(b"# TYPE coordinator_stage_failures_total counter") == 1
    assert b"later_version" not in text
    assert b"_created" not in text
    found = values(text, "coordinator_stage_failures_total")
    mine = {dict(labels).get("worker"): count for labels, count in found.items() if dict(labels)["stage"] == "beside"}
    assert mine == {None: 1.0, "score-1": 5.0, "score-2": 5.0}


def stored(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT metrics_jsonb FROM worker_heartbeats").scalar_one()


def test_a_heartbeat_carries_the_figures_until_they_are_served(engine: Engine) -> None:
    count_failure("carried", "timeout")
    heart = Heartbeat(engine, "score")
    heart.beat()
    assert stored(engine) == {name: [list(sample) for sample in found] for name, found in samples().items()}
    heart.carries_metrics = False
    heart.beat()
    assert stored(engine) is None


def run_worker(engine: Engine, body: Callable[[Worker], Any], port: int) -> None:
    given = load_settings({"WORKER_METRICS_PORT": str(port), "REPORT_API_HOST": "127.0.0.1"})

    async def main() -> None:
        await Worker("score", given, engine).run(body)

    asyncio.run(main())


def test_a_worker_serves_its_figures_on_its_port(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answers: list[bytes] = []

    async def body(worker: Worker) -> None:
        async def step() -> PassResult:
            worker.stop.set()
            return PassResult({"rows": 4})

        await worker.loop(step, 3600, stage="served")
        answers.append(await asyncio.to_thread(ask))
        worker.heartbeat.beat()
        assert stored(engine) is None

    def ask() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            read: bytes = answer.read()
            return read

    run_worker(engine, body, port)
    found = values(answers[0], "coordinator_stage_rows_total")
    assert found[(("stage", "served"), ("what", "rows"))] == 4.0
    with pytest.raises(OSError, match="refused"):
        ask()


def test_a_taken_port_is_no_reason_not_to_work(engine: Engine) -> None:
    async def body(worker: Worker) -> None:
        worker.heartbeat.beat()
        assert stored(engine) is not None

    with socket.create_server(("127.0.0.1", 0)) as listener:
        run_worker(engine, body, listener.getsockname()[1])
