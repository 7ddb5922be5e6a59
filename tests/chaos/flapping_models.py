"""An orchestrator with many model nodes in one process, which come and go while SIGUSR1 asks for it, until SIGUSR2.

Takes the arguments of the local orchestrator, of which it uses the port.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "services"))

from model_cluster import ModelCluster, ModelNode, steady

MODELS = 100
AT_ONCE = 10
LONGEST_AWAY_SECONDS = 2.0


class Flapping:
    """Takes nodes away and brings them back, each at a new port; some go without a word."""

    def __init__(self, cluster: ModelCluster) -> None:
        self._cluster = cluster
        self._chance = random.Random(9)
        self._tasks: list[asyncio.Task[None]] = []
        self._going = asyncio.Event()

    def begin(self) -> None:
        self._going.set()
        names = list(self._cluster.nodes)
        self._tasks = [asyncio.create_task(self._flap(names[first::AT_ONCE])) for first in range(AT_ONCE)]

    def end(self) -> None:
        self._going.clear()  # those that are away come back first

    async def _flap(self, names: list[str]) -> None:
        while self._going.is_set():
            node = self._cluster.nodes[self._chance.choice(names)]
            await self._leave(node, told=self._chance.random() < 0.5)
            await asyncio.sleep(self._chance.uniform(0, LONGEST_AWAY_SECONDS))

    async def _leave(self, node: ModelNode, *, told: bool) -> None:
        if told:
            await self._cluster.update(node.model_id, "STOPPED")
        await node.stop()
        await asyncio.sleep(self._chance.uniform(0, LONGEST_AWAY_SECONDS))
        await node.start()
        await self._cluster.update(node.model_id, *(["RUNNING"] if told else ["STOPPED", "RUNNING"]))


async def main(port: int, models: int) -> None:
    """Serve until killed."""
    cluster = ModelCluster(**{f"model-{number:03}": steady for number in range(models)})
    for node in cluster.nodes.values():
        node.keep_calls = False
    cluster.port = port
    async with cluster:
        flapping = Flapping(cluster)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, flapping.begin)
        loop.add_signal_handler(signal.SIGUSR2, flapping.end)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--models", type=int, default=MODELS)
    given = parser.parse_known_args()[0]
    asyncio.run(main(given.port, given.models))
