"""Writes predictions as answers come: in batches, under the lease, until they are stored or somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlmodel import Session

from coordinator_node.db.engine import transaction
from coordinator_node.db.tables import PredictionRow
from coordinator_node.entities.json_values import reason_of
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.runtime.leases import GroupFence, LeaseLostError
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import pause
from coordinator_node.services.merkle.commitments import commit_predictions
from coordinator_node.services.predict.ensemble_signals import EnsembleSignals
from coordinator_node.services.predict.slots import ShardCall, close_calls

log = get_logger(__name__)

GATHER_SECONDS = 0.05
# So often a batch that the database refuses is mended row by row before it is given up.
MENDED_AT_MOST = 3
BATCH_ROWS = 500


@dataclass
class Batch:
    """Rows, each with its shard and epoch, the calls that they complete, and those that are left open."""

    rows: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    closed: list[ShardCall] = field(default_factory=list)
    left: list[ShardCall] = field(default_factory=list)

    def epochs(self) -> dict[str, int]:
        """The shards that the batch is written under, with the latest epoch of each."""
        epochs: dict[str, int] = {}
        for shard, epoch in [*(row[:2] for row in self.rows), *((call.shard, call.epoch) for call in self.closed)]:
            epochs[shard] = max(epoch, epochs.get(shard, epoch))
        return epochs

    def parted(self) -> tuple[Batch, Batch]:
        """What belongs to the latest epochs, and what to earlier ones: their shards were lost and taken again."""
        epochs = self.epochs()
        present, passed = Batch(left=self.left), Batch()
        for row in self.rows:
            (present if row[1] == epochs[row[0]] else passed).rows.append(row)
        for call in self.closed:
            (present if call.epoch == epochs[call.shard] else passed).closed.append(call)
        return present, passed

    def without(self, lost: frozenset[str]) -> Batch:
        """The batch without what belongs to these shards."""
        return Batch(
            [row for row in self.rows if row[0] not in lost],
            [call for call in self.closed if call.shard not in lost],
            self.left,
        )


class PredictionWriter:
    """Takes rows at any time; one task writes them.

    `done` is told how many rows of a batch were stored, and which calls need no more work: those that were closed or
    left, and those whose shard was lost. `commits` is whether predictions are committed before their outcome.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime],
        done: Callable[[int, list[ShardCall]], None],
        signals: EnsembleSignals,
        *,
        commits: bool = True,
    ) -> None:
        self._commits = commits
        self._engine = engine
        self._clock = clock
        self._signals = signals
        self._done = done
        self._pending = Batch()
        self._more = asyncio.Event()
        self._full = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, call: ShardCall, row: dict[str, Any]) -> None:
        """A prediction to store."""
        self._pending.rows.append((call.shard, call.epoch, row))
        self._wake(full=len(self._pending.rows) >= BATCH_ROWS)

    def close(self, call: ShardCall) -> None:
        """Say, behind all rows of a call, that there are no more."""
        self._pending.closed.append(call)
        self._wake(full=False)

    def leave(self, call: ShardCall) -> None:
        """Say, behind some rows of a call, that whoever claims it next has to write the others."""
        self._pending.left.append(call)
        self._wake(full=False)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._more.wait()
            await _either(self._full, GATHER_SECONDS)
            self._more.clear()
            self._full.clear()
            batch, self._pending = self._pending, Batch()
            await self._store(batch)
            if not self._more.is_set():
                self._idle.set()

    async def flushed(self) -> None:
        """Wait until everything put so far is stored or refused."""
        await self._idle.wait()

    def _wake(self, *, full: bool) -> None:
        self._idle.clear()
        self._more.set()
        if full:
            self._full.set()

    async def _store(self, batch: Batch) -> None:
        batch, passed = batch.parted()
        if passed.rows or passed.closed:
            log.warning("predictions of shards that were lost and taken again dropped", rows=len(passed.rows))
            self._done(0, passed.closed)
        failures = 0
        while True:
            try:
                await asyncio.to_thread(self._write, batch)
            except LeaseLostError as error:
                # Whoever holds these shards now has written their models' rows as interrupted, or is about to.
                log.warning("predictions of lost shards dropped", reason=str(error))
                self._done(0, [call for call in batch.closed if call.shard in error.names])
                batch = batch.without(error.names)
            except (DataError, IntegrityError, UnicodeError, ValueError) as error:
                failures += 1
                if failures > MENDED_AT_MOST:
                    log.error("predictions dropped", rows=len(batch.rows), reason=reason_of(error))
                    self._done(0, [*batch.closed, *batch.left])  # no longer worked on: the next pass ends them
                    return
                await self._mend(batch)
            except DBAPIError as error:
                failures += 1
                log.warning("predictions wait for the database", rows=len(batch.rows), reason=str(error.orig))
                await asyncio.sleep(pause(failures))
            else:
                self._done(len(batch.rows), [*batch.closed, *batch.left])
                return

    async def _mend(self, batch: Batch) -> None:
        with contextlib.suppress(DBAPIError):  # the database went away meanwhile: the next try waits for it
            await asyncio.to_thread(self._refuse_unstorable, batch)

    def _write(self, batch: Batch) -> None:
        fence = GroupFence(batch.epochs())
        with transaction(self._engine) as session:
            fence.check(session)  # before the rows: what a lost shard's rows refer to may be gone
            rows = [row for _, _, row in batch.rows]
            _insert(session, commit_predictions(session, rows, self._clock()) if self._commits else rows)
            close_calls(session, [call.key for call in batch.closed], self._clock())
            self._signals.make(session, {call.slot_id for call in batch.closed})

    def _refuse_unstorable(self, batch: Batch) -> None:
        """Replace each row that the database refuses by one without what it refuses."""
        for index, (shard, epoch, row) in enumerate(batch.rows):
            try:
                with Session(self._engine) as session:
                    _insert(session, [row])
                    session.rollback()
            except (DataError, UnicodeError, ValueError) as error:
                log.warning("answer cannot be stored", model_id=row["model_id"], reason=type(error).__name__)
                reason = "answer cannot be stored: it holds text or numbers that the database refuses"
                failed = {"status": PredictionStatus.FAILED.value, "failed_reason": reason}
                batch.rows[index] = (shard, epoch, {**row, **failed, "inference_output_jsonb": {}, "meta_jsonb": {}})


def _insert(session: Session, rows: list[dict[str, Any]]) -> None:
    if rows:
        statement = insert(PredictionRow).on_conflict_do_nothing(index_elements=["slot_id", "model_id"])
        session.connection().execute(statement, rows)


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
