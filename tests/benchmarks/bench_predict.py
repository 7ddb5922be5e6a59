"""`make bench-predict`: slots kept, coordinator CPU, and time from slot to stored prediction, beside bare gRPC calls.

The models live in a process of their own, the coordinator's predict worker in another, Postgres beside them, all on
this machine. Every second one feed record arrives and one slot is due: two calls a model (`tick`, then `predict`). The
floor is a process that makes the same calls with bare grpc.aio stubs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import psutil
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallRequest
from model_runner_client.grpc.generated.dynamic_subclass_pb2_grpc import DynamicSubclassServiceStub
from sqlalchemy import Engine, text
from websockets.asyncio.server import ServerConnection, serve

from coordinator_node.db.engine import make_engine, transaction
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.times import utc_now
from coordinator_node.local.postgres import EmbeddedPostgres
from coordinator_node.local.process import launch_command
from coordinator_node.runtime.notify import FEED_RECORDS, notify
from coordinator_node.services.feed_data.store import store_records
from coordinator_node.services.predict.model_nodes import make_call

HERE = Path(__file__).parent
WARM_UP_SECONDS = 5
WORKSPACE = """
from coordinator_node.crunch_config import CrunchConfig, ScheduledPrediction
contract = CrunchConfig(scheduled_predictions=[ScheduledPrediction(
    scope_key="BTC-60", scope={"subject": "BTC"}, prediction_interval_seconds=1, resolve_horizon_seconds=60,
    meta={"deadline_seconds": 0.9})])
"""
STORED = """
    SELECT EXTRACT(EPOCH FROM pg_xact_commit_timestamp(p.xmin) - p.performed_at)::float8 AS seconds
    FROM predictions p WHERE p.performed_at >= :since AND p.performed_at < :until AND p.model_id = ANY(:models)
      AND p.status = 'PENDING'
"""

KEPT = """
    SELECT count(*) FROM prediction_slots WHERE status = 'CALLED' AND slot_at >= :since AND slot_at < :until
"""


@contextlib.contextmanager
def model_farm(models: int, hanging: int) -> Iterator[list[int]]:
    """Model nodes in a process of their own; gives their ports."""
    farm = subprocess.Popen(
        [sys.executable, str(HERE / "model_farm.py"), str(models), str(hanging)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert farm.stdout is not None
        yield json.loads(farm.stdout.readline())
    finally:
        farm.kill()
        farm.wait()


@contextlib.contextmanager
def database() -> Iterator[tuple[EmbeddedPostgres, Engine]]:
    """A Postgres that remembers when each transaction was committed."""
    with tempfile.TemporaryDirectory(prefix="bench-predict-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "postgres", durable=False) as postgres:
            program = postgres.program()
            postgres.prepare()
            command = launch_command([*program.argv, "-c", "track_commit_timestamp=on"], program.user)
            server = subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL)
            try:
                postgres.wait_until_ready()
                engine = make_engine(postgres.url)
                migrate_engine(engine)
                yield postgres, engine
                engine.dispose()
            finally:
                server.terminate()
                server.wait()


async def orchestrate(ports: list[int]) -> tuple[object, int]:
    """An orchestrator that names the models."""
    data = [
        {
            "deployment_id": "1",
            "model_id": f"model-{index:04}",
            "state": "RUNNING",
            "ip": "127.0.0.1",
            "port": port,
            "infos": {"model_name": f"model {index}", "cruncher_id": "1", "cruncher_name": "1"},
        }
        for index, port in enumerate(ports)
    ]

    async def handle(client: ServerConnection) -> None:
        await client.send(json.dumps({"event": "init", "data": data}))
        await client.wait_closed()

    server = await serve(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


def put_record(engine: Engine) -> None:
    """One second's record, as the feed worker stores it."""
    now = utc_now()
    record = FeedRecord("simulated", "BTC", "tick", "1s", now.replace(microsecond=0), {"price": 100.0})
    with transaction(engine) as session:
        store_records(session, [record], now)
        notify(session, FEED_RECORDS)


async def run_coordinator(models: int, hanging: int, seconds: int) -> dict[str, float]:
    """The predict worker as a process of its own, for so long."""
    with (
        model_farm(models, hanging) as ports,
        database() as (postgres, engine),
        tempfile.TemporaryDirectory() as folder,
    ):
        (Path(folder) / "config").mkdir()
        (Path(folder) / "config" / "crunch_config.py").write_text(WORKSPACE)
        server, port = await orchestrate(ports)
        past = [
            FeedRecord("simulated", "BTC", "tick", "1s", utc_now() - timedelta(seconds=age), {"price": 100.0 + age})
            for age in range(2, 130)
        ]
        with transaction(engine) as session:
            store_records(session, past, utc_now())
        environment = {
            **os.environ,
            **postgres.environment,
            "FEED_SOURCE": "simulated",
            "MODEL_RUNNER_NODE_HOST": "127.0.0.1",
            "MODEL_RUNNER_NODE_PORT": str(port),
            "LOG_LEVEL": "WARNING",
        }
        command = [sys.executable, "-m", "coordinator_node.workers.predict_worker"]
        worker = subprocess.Popen(command, cwd=folder, env=environment)
        try:
            return await _measure(engine, worker, models, hanging, seconds)
        finally:
            worker.terminate()
            worker.wait()
            server.close()  # type: ignore[attr-defined]  # a websockets server


async def _measure(
    engine: Engine, worker: subprocess.Popen[bytes], models: int, hanging: int, seconds: int
) -> dict[str, float]:
    process = psutil.Process(worker.pid)
    while not await asyncio.to_thread(_called, engine):
        await asyncio.to_thread(put_record, engine)
        await asyncio.sleep(0.5)
    await _feed(engine, WARM_UP_SECONDS)
    since = utc_now().replace(microsecond=0) + timedelta(seconds=1)
    until = since + timedelta(seconds=seconds)
    before = process.cpu_times()
    await _feed(engine, seconds + 2)
    after = process.cpu_times()
    names = [f"model-{index:04}" for index in range(hanging, models)]
    values = {"since": since, "until": until, "models": names}
    with engine.connect() as connection:
        stored = sorted(connection.execute(text(STORED), values).scalars())
        kept = connection.execute(text(KEPT), values).scalar_one()
    return {
        "slots kept": kept,
        "slots": seconds,
        "predictions": len(stored),
        "cpu": (after.user - before.user + after.system - before.system) / (seconds + 2) * seconds,
        "p50": stored[len(stored) // 2] * 1000,
        "p99": stored[int(len(stored) * 0.99)] * 1000,
    }


async def _feed(engine: Engine, seconds: int) -> None:
    """One record at the middle of every second, so that it does not fall together with the slots."""
    for _ in range(seconds):
        await asyncio.sleep(1.5 - time.time() % 1 if time.time() % 1 > 0.5 else 0.5 - time.time() % 1)
        await asyncio.to_thread(put_record, engine)


def _called(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT 1 FROM prediction_slots WHERE status = 'CALLED' LIMIT 1")).scalar())


async def run_bare(models: int, seconds: int) -> dict[str, float]:
    """The floor: the same two calls a second to every model, and nothing else."""
    with model_farm(models, 0) as ports:
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in ports]
        stubs = [DynamicSubclassServiceStub(channel) for channel in channels]
        candles = [
            {"ts": i, "open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0, "volume": 0.0} for i in range(120)
        ]
        payload = json.dumps({"symbol": "BTC", "asof_ts": 1, "candles_1m": candles}).encode()
        tick = make_call("tick", [("JSON", payload)])
        predict = make_call("predict", [("STRING", "BTC"), ("INT", 60), ("INT", 15)])
        taken: list[float] = []

        async def ask(stub: DynamicSubclassServiceStub) -> None:
            begun = time.perf_counter()
            for call in (tick, predict):
                await stub.Call(CallRequest(methodName=call.method, methodArguments=call.arguments), timeout=1)
            taken.append(time.perf_counter() - begun)

        await asyncio.gather(*(ask(stub) for stub in stubs))
        taken.clear()
        process = psutil.Process()
        before = process.cpu_times()
        for _ in range(seconds):
            begun = time.perf_counter()
            await asyncio.gather(*(ask(stub) for stub in stubs))
            await asyncio.sleep(max(0.0, 1 - (time.perf_counter() - begun)))
        after = process.cpu_times()
        await asyncio.gather(*(channel.close() for channel in channels))
        taken.sort()
        return {
            "cpu": after.user - before.user + after.system - before.system,
            "p50": taken[len(taken) // 2] * 1000,
            "p99": taken[int(len(taken) * 0.99)] * 1000,
        }


def say(name: str, figures: dict[str, float]) -> None:
    """One line of figures."""
    print(f"{name:28}", *(f"{key} {value:.4g}" for key, value in figures.items()), sep="  ", flush=True)


def compare(models: int, seconds: int) -> None:
    """The coordinator beside the bare calls."""
    bare = asyncio.run(run_bare(models, seconds))
    say("bare grpc.aio", bare)
    ours = asyncio.run(run_coordinator(models, 0, seconds))
    say(f"predict worker, {models} models", ours)
    print(f"coordinator CPU / bare CPU: {ours['cpu'] / bare['cpu']:.2f}  (target: at most 3)")
    print(f"slots kept: {ours['slots kept']:.0f} of {ours['slots']:.0f}; p99 {ours['p99']:.0f} ms (target: under 500)")


def compare_hanging(models: int, seconds: int, pairs: int) -> None:
    """The others' p99 with one model hanging for ever, over that with none, run by run."""
    ratios = []
    for pair in range(pairs):
        without, with_one = (asyncio.run(run_coordinator(models, hanging, seconds)) for hanging in (0, 1))
        ratios.append(with_one["p99"] / without["p99"])
        print(f"pair {pair + 1}: p99 {without['p99']:.0f} ms without, {with_one['p99']:.0f} ms with one hanging")
    print(f"median ratio: {statistics.median(ratios):.3f}  (target: under 1.2)")


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--hanging-pairs", type=int, default=0)
    given = parser.parse_args()
    if given.hanging_pairs:
        compare_hanging(given.models, given.seconds, given.hanging_pairs)
    else:
        compare(given.models, given.seconds)


if __name__ == "__main__":
    main()
