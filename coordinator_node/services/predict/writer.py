"""Writes predictions as answers come: in batches, under the lease, until they are stored or somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, DBAPIError
from sqlmodel import Session

from coordinator_node.db.engine import transaction
from coordinator_node.db.tables import PredictionRow
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.runtime.leases import LeaseFence, LeaseLostError
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import pause
from coordinator_node.services.predict.slots import close_slot

log = get_logger(__name__)

GATHER_SECONDS = 0.05
BATCH_ROWS = 500


@dataclass
class Batch:
    """Rows and closed slots that are written together under one epoch."""

    fence: LeaseFence
    rows: list[dict[str, Any]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


class PredictionWriter:
    """Takes rows at any time; one task writes them. `stored` is told of each batch that was."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime], stored: Callable[[Batch], None]) -> None:
        self._engine = engine
        self._clock = clock
        self._stored = stored
        self._pending: list[Batch] = []
        self._more = asyncio.Event()
        self._full = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, fence: LeaseFence, row: dict[str, Any]) -> None:
        """A prediction to store."""
        batch = self._batch(fence)
        batch.rows.append(row)
        if len(batch.rows) >= BATCH_ROWS:
            self._full.set()

    def close(self, fence: LeaseFence, slot_id: str) -> None:
        """Say, behind all rows of a slot, that there are no more."""
        self._batch(fence).closed.append(slot_id)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._more.wait()
            await _either(self._full, GATHER_SECONDS)
            self._more.clear()
            self._full.clear()
            batches, self._pending = self._pending, []
            for batch in batches:
                await self._store(batch)
            if not self._pending:
                self._idle.set()

    async def flushed(self) -> None:
        """Wait until everything put so far is stored or refused."""
        await self._idle.wait()

    def _batch(self, fence: LeaseFence) -> Batch:
        if not self._pending or self._pending[-1].fence != fence:
            self._pending.append(Batch(fence))
        self._idle.clear()
        self._more.set()
        return self._pending[-1]

    async def _store(self, batch: Batch) -> None:
        failures = 0
        while True:
            try:
                await asyncio.to_thread(self._write, batch)
                self._stored(batch)
                return
            except LeaseLostError as error:
                # Whoever holds the lease now has written these models' rows as interrupted, or is about to.
                log.warning("predictions dropped", rows=len(batch.rows), reason=str(error))
                return
            except (DataError, UnicodeError, ValueError):
                await asyncio.to_thread(self._refuse_unstorable, batch)
            except DBAPIError as error:
                failures += 1
                log.warning("predictions wait for the database", rows=len(batch.rows), reason=str(error.orig))
                await asyncio.sleep(pause(failures))

    def _write(self, batch: Batch) -> None:
        with transaction(self._engine, batch.fence) as session:
            _insert(session, batch.rows)
            for slot_id in batch.closed:
                close_slot(session, slot_id, batch.fence.name, self._clock())

    def _refuse_unstorable(self, batch: Batch) -> None:
        """Replace each row that the database refuses by one without what it refuses."""
        for index, row in enumerate(batch.rows):
            try:
                with Session(self._engine) as session:
                    _insert(session, [row])
                    session.rollback()
            except (DataError, UnicodeError, ValueError) as error:
                log.warning("answer cannot be stored", model_id=row["model_id"], reason=type(error).__name__)
                reason = "answer cannot be stored: it holds text or numbers that the database refuses"
                failed = {"status": PredictionStatus.FAILED.value, "failed_reason": reason}
                batch.rows[index] = {**row, **failed, "inference_output_jsonb": {}, "meta_jsonb": {}}


def _insert(session: Session, rows: list[dict[str, Any]]) -> None:
    if rows:
        statement = insert(PredictionRow).on_conflict_do_nothing(index_elements=["slot_id", "model_id"])
        session.connection().execute(statement, rows)


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
