"""The predict stage with a test clock: models answer over real sockets, and time moves when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from model_cluster import Behaviour, ModelCluster, ModelRaisedError
from sqlalchemy import Engine

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.runtime.heartbeat import Heartbeat
from coordinator_node.runtime.leases import LeaseGroup
from coordinator_node.services.predict.service import PredictService
from coordinator_node.services.predict.shards import SHARD_NAMES, Shards


def behaviour(model: Any) -> Behaviour:
    async def call(method: str, arguments: list[Any]) -> Any:
        try:
            return getattr(model, method)(*arguments)
        except ValueError as error:
            raise ModelRaisedError(f"{type(error).__name__}: {error}") from error

    return call


@asynccontextmanager
async def predicting(
    engine: Engine, config: CrunchConfig, models: dict[str, Any], environ: dict[str, str], connected: datetime
) -> AsyncIterator[Callable[[datetime], Coroutine[Any, Any, None]]]:
    """Give what does a step of the predict stage at a moment, and stores all that is answered.

    The models connect, and the schedules are activated, at `connected`: a little before the first slot.
    """
    now = connected
    async with ModelCluster(**{name: behaviour(model) for name, model in models.items()}) as cluster:
        settings = load_settings(
            {**environ, "MODEL_RUNNER_NODE_HOST": "127.0.0.1", "MODEL_RUNNER_NODE_PORT": str(cluster.port)}
        )
        heartbeat = Heartbeat(engine, "predict")
        heartbeat.beat()
        group = LeaseGroup(engine, SHARD_NAMES, heartbeat.worker_id, seconds=60.0)
        shards = Shards(engine, group, "predict", lambda: None)
        beside: list[asyncio.Task[None]] = []

        def background(work: Coroutine[Any, Any, None]) -> None:
            beside.append(asyncio.create_task(work))

        service = PredictService(engine, config, settings, shards, lambda: now, lambda: None, background)
        background(shards.run())
        service.start()

        async def step(moment: datetime) -> None:
            nonlocal now
            now = moment
            await service.step()
            await idle(service)
            for node in cluster.nodes.values():
                node.calls.clear()  # what is measured here is the stage

        try:
            await until(lambda: len(service._lanes.ids()) == len(models), service)
            yield step
        finally:
            await service.close()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            group.release()


async def until(true: Callable[[], bool], service: PredictService) -> None:
    for _ in range(1000):
        await service.step()
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the models never connected")


async def idle(service: PredictService) -> None:
    """Wait until every model has been told all there is to tell, and everything they said is stored."""
    if service._asking:
        await asyncio.wait(service._asking)
    await service._writer.flushed()
    while not all(lane._wake._waiters for lane in service._lanes.all()):  # its lane waits for something to do
        await asyncio.sleep(0.001)
