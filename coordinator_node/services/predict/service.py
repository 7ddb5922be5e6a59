"""The predict stage: hands new input to every model, and asks every model in every due slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.entities.json_values import storable_text
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.runtime.leases import Lease, LeaseFence
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.predict.answers import RefusedAnswerError, output_validator, read_answer
from coordinator_node.services.predict.due import DueSlots, Opened
from coordinator_node.services.predict.lanes import Answer, Lane, Lanes, Running
from coordinator_node.services.predict.model_nodes import Call, ModelNodes, make_call
from coordinator_node.services.predict.presence import Presence
from coordinator_node.services.predict.raw_input import InputBuilderError, InputReader, MarketInput
from coordinator_node.services.predict.slots import INTERRUPTED, OpenSlot
from coordinator_node.services.predict.writer import Batch, PredictionWriter

log = get_logger(__name__)

LEASE_NAME = "predict"
IDLE_SECONDS = 0.5
# After the orchestrator has named the models, so long is waited for those that are still being set up.
CONNECT_SECONDS = 10.0
# When the worker is to end, so long is waited for the answers of open slots.
DRAIN_SECONDS = 5.0
TIMEOUT = "timeout"


class PredictService:
    """One predict worker's stage. Its methods run in one event loop; SQL runs in threads."""

    def __init__(
        self,
        engine: Engine,
        config: CrunchConfig,
        settings: Settings,
        lease: Lease,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._config = config
        self._lease = lease
        self._clock = clock
        self._reader = InputReader(config, settings)
        self._validator = output_validator(settings)
        self._nodes = ModelNodes(settings, changed=wake)
        self._lanes = Lanes(self._nodes, settings, on_join=self._welcome)
        self._presence = Presence()
        self._due = DueSlots(config, settings, self._reader, self._presence)
        self._writer = PredictionWriter(engine, clock, self._stored)
        self._writing: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        # Slots that this process works on, by the epoch they were opened under, until all their rows are stored.
        self._working: dict[str, int] = {}
        self._epoch: int | None = None
        self._input: MarketInput | None = None
        self._ticks: dict[str, Call] = {}
        self._named_at: float | None = None
        self._ready = False
        self._count = 0

    def start(self) -> None:
        """Follow the orchestrator, and be ready to write."""
        self._nodes.start()
        self._writing = asyncio.create_task(self._writer.run())

    async def step(self) -> PassResult:
        """Do all that is due now; the loop comes back at the next slot, or when woken."""
        if not self._lease.held:
            return PassResult(wait_seconds=IDLE_SECONDS)
        fence = self._lease.fence()
        if fence.epoch != self._epoch:
            await asyncio.to_thread(self._take_over, fence)
        await self._follow_models(fence)
        now = self._clock()
        try:
            opened, missed = await asyncio.to_thread(self._open_due, fence, now)
        except Exception:
            self._epoch = None  # whether it was committed is not known: read anew how far the slots have come
            raise
        for item in opened:
            self._hand_out(item.given)
            self._ask(item.slot, fence)
        if not opened:
            await self._refresh_input(now)
        count, self._count = self._count, 0
        counts = {"slots": len(opened), "missed": missed, "predictions": count}
        return PassResult(counts, wait_seconds=self._due.seconds_to_next(self._clock()))

    async def close(self) -> None:
        """Let open slots be answered for a while, store what came, and disconnect."""
        if self._asking:
            await asyncio.wait(self._asking, timeout=DRAIN_SECONDS)
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._writer.flushed()
        if self._writing:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._lanes.close()
        await self._nodes.close()

    def _take_over(self, fence: LeaseFence) -> None:
        """Bring the schedules in step with the config, end what nobody works on, and find how far the slots are."""
        working = [slot_id for slot_id, epoch in self._working.items() if epoch == fence.epoch]
        now = self._clock()
        with transaction(self._engine, fence) as session:
            ended = self._due.take_over(session, fence, working, now)
            self._presence.load(session)
        self._epoch = fence.epoch
        log.info("predicting", epoch=fence.epoch, schedules=len(self._due.schedules), interrupted=ended)

    async def _follow_models(self, fence: LeaseFence) -> None:
        """Write which models there are before any of them is asked, because predictions refer to their rows."""
        running = self._nodes.running()
        self._ready = self._ready or self._models_are_known()
        if not self._ready:
            return
        if self._presence.changes(running):
            now = self._clock()
            await asyncio.to_thread(self._write_presence, fence, running, now)
            self._presence.written(running, now)
        await self._lanes.follow(running)

    def _write_presence(self, fence: LeaseFence, running: Running, now: datetime) -> None:
        with transaction(self._engine, fence) as session:
            self._presence.write(session, running, now)

    def _models_are_known(self) -> bool:
        """Whether the orchestrator has named the models and they had time to connect: before, nobody is absent."""
        if not self._nodes.named:
            return False
        loop_now = asyncio.get_running_loop().time()
        self._named_at = loop_now if self._named_at is None else self._named_at
        return not self._nodes.connecting or loop_now - self._named_at > CONNECT_SECONDS

    def _open_due(self, fence: LeaseFence, now: datetime) -> tuple[list[Opened], int]:
        if not self._due.any(now):
            return [], 0
        present = self._lanes.ids() if self._ready else None
        with transaction(self._engine, fence) as session:
            opened, missed, progress = self._due.open(session, fence, present, now)
        self._due.advance(progress)
        return opened, missed

    async def _refresh_input(self, now: datetime) -> None:
        try:
            given = await asyncio.to_thread(self._read_input, now)
        except InputBuilderError as error:
            log.warning("input skipped", reason=str(error))
            return
        if given is not None:
            self._hand_out(given)

    def _read_input(self, now: datetime) -> MarketInput | None:
        with Session(self._engine) as session:
            return self._reader.read(session, now)

    def _hand_out(self, given: MarketInput) -> None:
        """Tick every model with an input, unless they have it or a newer one."""
        if self._input and (given.version == self._input.version or given.known_at < self._input.known_at):
            return
        method = self._config.call_method.tick_method
        self._input = given
        self._ticks = {subject: make_call(method, [("JSON", data)]) for subject, data in given.encoded.items()}
        for lane in self._lanes.all():
            lane.tick(self._ticks)

    def _welcome(self, lane: Lane) -> None:
        lane.tick(self._ticks)

    def _ask(self, slot: OpenSlot, fence: LeaseFence) -> None:
        if not slot.model_ids:
            return
        self._working[slot.id] = fence.epoch
        task = asyncio.create_task(self._ask_all(slot, fence))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask_all(self, slot: OpenSlot, fence: LeaseFence) -> None:
        """Ask every model of a slot at once; each answer is put as it comes, and at the deadline what is missing."""
        left = (slot.deadline_at - self._clock()).total_seconds()
        deadline = asyncio.get_running_loop().time() + left
        call = self._due.call_of(slot.schedule)
        waiting: dict[str, asyncio.Future[Answer]] = {}
        for model_id in slot.model_ids:
            lane = self._lanes.get(model_id)
            if lane is None:
                self._put(slot, fence, model_id, Answer(error="the model went away"))
                continue
            waiting[model_id] = lane.ask(call, deadline)
            waiting[model_id].add_done_callback(partial(self._answered, slot, fence, model_id))
        reason = TIMEOUT
        try:
            if waiting:
                await asyncio.wait(waiting.values(), timeout=left)
        except asyncio.CancelledError:
            reason = INTERRUPTED  # the worker ends: the rows are written now rather than by whoever takes over
        await asyncio.sleep(0)  # the callbacks of what was answered just now come first
        for model_id, answer in waiting.items():
            if not answer.done():
                answer.cancel()
                self._put(slot, fence, model_id, Answer(error=reason, exec_time_ms=max(left, 0) * 1000))
        self._writer.close(fence, slot.id)

    def _answered(self, slot: OpenSlot, fence: LeaseFence, model_id: str, answer: asyncio.Future[Answer]) -> None:
        if not answer.cancelled():
            self._put(slot, fence, model_id, answer.result())

    def _put(self, slot: OpenSlot, fence: LeaseFence, model_id: str, answer: Answer) -> None:
        now = self._clock()
        error = answer.error or (TIMEOUT if now > slot.deadline_at else None)
        output = {}
        if error is None:
            try:
                output = read_answer(answer.value, self._config.output_type, self._validator)
            except RefusedAnswerError as refused:
                error = str(refused)
        row = slot.prediction(
            model_id,
            PredictionStatus.FAILED if error else PredictionStatus.PENDING,
            exec_time_ms=answer.exec_time_ms,
            inference_output_jsonb=output,
            failed_reason=storable_text(error) if error else None,
            answered_at=None if answer.error else now,
        )
        self._writer.put(fence, row)

    def _stored(self, batch: Batch) -> None:
        self._count += len(batch.rows)
        for slot_id in batch.closed:
            self._working.pop(slot_id, None)
