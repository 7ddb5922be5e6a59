"""Asks the database how the engine is, on a connection of its own: a busy pool is no dead database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

import psycopg
from sqlalchemy import Engine

from coordinator_node.db.migrations import head_revision
from coordinator_node.db.reports.health import Facts, read_facts
from coordinator_node.runtime.notify import libpq_url

PROBE_SECONDS = 2.0
# Whoever asks again within this time gets the same facts: the page is public.
FRESH_SECONDS = 1.0


class HealthProbe:
    """Reads the facts; however many ask at once, there is one connection."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._url = libpq_url(engine)
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
            async with (
                asyncio.timeout(PROBE_SECONDS),
                await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection,
            ):
                return await read_facts(connection, self.head, self._clock())
        except (psycopg.Error, OSError, TimeoutError):
            return None
        finally:
            self._stale_at = time.monotonic() + FRESH_SECONDS
