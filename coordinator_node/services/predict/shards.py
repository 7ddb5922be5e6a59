"""Shards: how several predict workers divide the models, so that each is called by exactly one.

A model belongs to one of SHARDS shards by a hash of its id, for ever. Each shard is a lease. A worker takes free ones
up to its fair share of those alive at once, and more than that only once they have been free for a while, because then
nobody else wants them; what it holds beyond its share it winds down and gives up. So the shards of a worker that died
are called again within LEASE_SECONDS + IDLE_SECONDS and a round of BALANCE_SECONDS.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from coordinator_node.runtime.heartbeat import BEAT_SECONDS, count_alive
from coordinator_node.runtime.leases import LeaseGroup
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.model_shards import SHARD_NAMES, SHARDS

__all__ = ["SHARD_NAMES", "Shards"]

log = get_logger(__name__)

BALANCE_SECONDS = 1.0
IDLE_SECONDS = 1.5
# A worker is counted until it has missed two beats: longer, and its shards would wait for it.
ALIVE_SECONDS = 3 * BEAT_SECONDS


class Shards:
    """The shards of one worker, kept in balance with the others'."""

    def __init__(self, engine: Engine, group: LeaseGroup, role: str, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._group = group
        self._role = role
        self._changed = changed
        self._surplus: set[str] = set()
        # Each worker begins at another shard, so that two that start together do not want the same ones.
        start = int.from_bytes(hashlib.sha256(group.holder.encode()).digest()[:8]) % SHARDS
        self._order = SHARD_NAMES[start:] + SHARD_NAMES[:start]

    def held(self) -> dict[str, int]:
        """The shards that this worker calls, with the epoch of each."""
        return self._group.epochs

    def surplus(self) -> set[str]:
        """Those of them that others should have: nothing new is begun in them, and `give_up` ends them."""
        return self._surplus & self.held().keys()

    def give_up(self, names: set[str]) -> None:
        """Release shards in which nothing is under way."""
        self._group.release(names)
        self._surplus -= names
        log.info("shards given up", shards=len(names), held=len(self.held()))

    async def run(self) -> None:
        """Keep them for ever."""
        while True:
            before = self.held()
            with contextlib.suppress(DBAPIError):
                await asyncio.to_thread(self.balance)
            if self.held() != before:
                self._changed()
            await asyncio.sleep(BALANCE_SECONDS)

    def balance(self) -> None:
        """Renew what is held, take what is free, and find what is too much."""
        self._group.renew()
        with Session(self._engine) as session:
            alive = max(1, count_alive(session, self._role, ALIVE_SECONDS))
        fair = math.ceil(SHARDS / alive)
        taken = self._take(self._group.free(), fair - len(self.held()))
        taken += self._take(self._group.free(IDLE_SECONDS), SHARDS)
        if taken:
            log.info("shards taken", shards=taken, held=len(self.held()), workers=alive)
        held = [name for name in self._order if name in self.held()]
        self._surplus = set(held[fair:])

    def _take(self, free: list[str], most: int) -> int:
        wanted = [name for name in self._order if name in free][: max(0, most)]
        return sum(self._group.take(name) for name in wanted)
