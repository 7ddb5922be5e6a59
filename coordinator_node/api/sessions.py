"""How the API works with the database: bounded in time, read-only unless it says otherwise."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlmodel import Session

from coordinator_node.db.engine import transaction
from coordinator_node.runtime.notify import libpq_url

STATEMENT_SECONDS = 10
PROBE_SECONDS = 2.0

# Reports are asked for with ranges of all lengths, so that a plan for one is no plan for another; compiling one takes
# longer than most of them run. Sums over long ranges have few groups, of which Postgres expects many: with room for
# them it need not sort all rows on the disk first. Two more processes may help it, but not with one hash table for all,
# which takes shared memory that containers have little of.
_READ_ONLY = text(
    """
    SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', :ms, true),
           set_config('plan_cache_mode', 'force_custom_plan', true), set_config('jit', 'off', true),
           set_config('work_mem', '32MB', true), set_config('hash_mem_multiplier', '4', true),
           set_config('max_parallel_workers_per_gather', '2', true), set_config('enable_parallel_hash', 'off', true)
    """
)
_TIMEOUT = text("SELECT set_config('statement_timeout', :ms, true)")
_MILLISECONDS = {"ms": str(STATEMENT_SECONDS * 1000)}


class ReportDatabase:
    """Connections for requests. No statement of theirs runs longer than STATEMENT_SECONDS.

    With a read replica (DATABASE_READ_URL) reports come from there, and may be as old as it lags behind.
    """

    def __init__(self, engine: Engine, replica: Engine | None = None) -> None:
        self._engine = engine
        self._reports = replica or engine
        self._running: set[psycopg.Connection] = set()
        self._lock = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only transaction; to be left before the answer is sent, so that a slow client holds no connection."""
        with self._reading(self._reports) as connection:
            yield connection

    @contextmanager
    def reading_own_writes(self) -> Iterator[Connection]:
        """As `reading`, and sees what the API has just written, for whoever asks what became of it."""
        with self._reading(self._engine) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One unit of work: commits at the end, rolls back on any error."""
        with transaction(self._engine) as session, self._noted(session.connection()):
            session.connection().execute(_TIMEOUT, _MILLISECONDS)
            yield session

    def cancel_running(self) -> None:
        """Cancel what is still running, when the API has to end; the threads that wait for it then end too."""
        with self._lock:
            running = list(self._running)
        for driver in running:
            driver.cancel_safe(timeout=1)

    @contextmanager
    def _reading(self, engine: Engine) -> Iterator[Connection]:
        with engine.connect() as connection, self._noted(connection):
            connection.execute(_READ_ONLY, _MILLISECONDS)
            yield connection

    @contextmanager
    def _noted(self, connection: Connection) -> Iterator[None]:
        driver = connection.connection.driver_connection
        if not isinstance(driver, psycopg.Connection):
            raise TypeError(f"the API needs psycopg 3, not {type(driver).__name__}")
        with self._lock:
            self._running.add(driver)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(driver)


class DatabaseProbe:
    """Asks the database for a sign of life, on a connection of its own: a busy pool is no dead database.

    However many ask at once, there is one such connection.
    """

    def __init__(self, engine: Engine) -> None:
        self._url = libpq_url(engine)
        self._asking: asyncio.Task[bool] | None = None

    async def answers(self) -> bool:
        """Whether the database answered within PROBE_SECONDS."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        try:
            async with (
                asyncio.timeout(PROBE_SECONDS),
                await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection,
            ):
                await connection.execute("SELECT 1")
        except (psycopg.Error, OSError, TimeoutError):
            return False
        return True
