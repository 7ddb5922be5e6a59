"""Asks the database how the engine is, on a connection of its own: a busy pool is no dead database."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import psycopg
from sqlalchemy import Engine

from coordinator_node.db.migrations import head_revision
from coordinator_node.db.reports.health import Facts, ReplicaFact, read_facts, read_replica
from coordinator_node.runtime.notify import libpq_url

PROBE_SECONDS = 2.0
# Whoever asks again within this time gets the same facts: the page is public.
FRESH_SECONDS = 1.0


class HealthProbe:
    """Reads the facts; however many ask at once, there is one connection, and one to the read replica."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime], replica: Engine | None = None) -> None:
        self._url = libpq_url(engine)
        self._replica_url = None if replica is None else libpq_url(replica)
        self._clock = clock
        self.head = head_revision()
        self._asking: asyncio.Task[Facts | None] | None = None
        self._stale_at = 0.0

    async def facts(self) -> Facts | None:
        """What the database says; None where it did not within PROBE_SECONDS."""
        asking = self._asking
        if asking is None or (asking.done() and time.monotonic() >= self._stale_at):
            asking = self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(asking)

    async def _ask(self) -> Facts | None:
        try:
            facts, replica = await asyncio.gather(
                _answer(self._url, lambda connection: read_facts(connection, self.head, self._clock())),
                self._ask_replica(),
            )
        finally:
            self._stale_at = time.monotonic() + FRESH_SECONDS
        return None if facts is None else dataclasses.replace(facts, replica=replica)

    async def _ask_replica(self) -> ReplicaFact | None:
        if self._replica_url is None:
            return None
        return await _answer(self._replica_url, read_replica) or ReplicaFact(answers=False)


async def _answer[T](url: str, ask: Callable[[psycopg.AsyncConnection], Awaitable[T]]) -> T | None:
    """What a database answers; None where it did not within PROBE_SECONDS."""
    try:
        async with (
            asyncio.timeout(PROBE_SECONDS),
            await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        ):
            return await ask(connection)
    except (psycopg.Error, OSError, TimeoutError):
        return None
