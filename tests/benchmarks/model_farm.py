"""Many model nodes in one process: real gRPC servers that answer at once; some may hang for ever.

Prints one line of JSON, the ports, once all of them serve.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "services"))

from model_cluster import Behaviour, ModelNode, steady


async def hang(method: str, arguments: list[object]) -> object:
    """Never answer."""
    await asyncio.Event().wait()


async def main(models: int, hanging: int) -> None:
    """Serve until killed."""
    nodes = []
    for index in range(models):
        behaviour: Behaviour = hang if index < hanging else steady
        nodes.append(ModelNode(f"model-{index:04}", behaviour, keep_calls=False))
    await asyncio.gather(*(node.start() for node in nodes))
    print(json.dumps([node.port for node in nodes]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=int)
    parser.add_argument("hanging", type=int)
    given = parser.parse_args()
    asyncio.run(main(given.models, given.hanging))
