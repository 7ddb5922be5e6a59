"""The predict stage: hands new input to every model, and asks every model in every due slot, or in every round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.runtime.clock import not_ahead
from coordinator_node.runtime.leases import GroupFence
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.model_shards import shard_of
from coordinator_node.services.predict.due import DueSlots
from coordinator_node.services.predict.ensemble_signals import EnsembleSignals
from coordinator_node.services.predict.lanes import Answer, Lane, Lanes
from coordinator_node.services.predict.model_nodes import Call, ModelNodes, make_call
from coordinator_node.services.predict.outcomes import ABSENT, TIMEOUT, Outcomes
from coordinator_node.services.predict.presence import Presence, Running
from coordinator_node.services.predict.raw_input import InputBuilderError, InputReader, MarketInput
from coordinator_node.services.predict.round_calls import RoundCall, claim_rounds
from coordinator_node.services.predict.rounds import Rounds
from coordinator_node.services.predict.shards import Shards
from coordinator_node.services.predict.slots import (
    INTERRUPTED,
    CallKey,
    ShardCall,
    SlotCall,
    claim_calls,
    end_left_calls,
)
from coordinator_node.services.predict.writer import PredictionWriter
from coordinator_node.services.tournament_predict import is_tournament

log = get_logger(__name__)

IDLE_SECONDS = 0.5
# So long is waited for models of newly taken shards that are still being set up.
CONNECT_SECONDS = 10.0
# When the worker is to end, so long is waited for the answers of open slots.
DRAIN_SECONDS = 5.0


class PredictService:
    """One predict worker's stage. Its methods run in one event loop; SQL runs in threads."""

    def __init__(
        self,
        engine: Engine,
        config: CrunchConfig,
        settings: Settings,
        shards: Shards,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
        background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._engine = engine
        self._config = config
        self._shards = shards
        self._clock = clock
        self._reader = InputReader(config, settings)
        self._nodes = ModelNodes(settings, changed=wake)
        self._lanes = Lanes(self._nodes, settings, on_join=self._welcome)
        self._presence = Presence()
        self._due = DueSlots(config, settings, self._reader)
        self._outcomes = Outcomes(config, settings, clock)
        self._signals = EnsembleSignals(config, self._outcomes, commits=settings.merkle_commit_predictions)
        self._writer = PredictionWriter(
            engine, clock, self._written, self._signals, commits=settings.merkle_commit_predictions
        )
        self._tournament = is_tournament(config)
        self._rounds = Rounds(self._lanes, self._writer, self._outcomes, self._keeps)
        self._background = background
        self._asking: set[asyncio.Task[None]] = set()
        # The calls that this process works on, until all their rows are stored.
        self._working: set[CallKey] = set()
        self._loaded = False
        self._ending = False
        # When each shard was taken, by the loop's clock, until its models had time to connect.
        self._settling: dict[str, float] = {}
        # Whether those of the first shards had: before, no slot is opened, so that none fails for a worker's start.
        self._warm = False
        self._mine: dict[str, int] = {}
        self._input: MarketInput | None = None
        self._ticks: dict[str, Call] = {}
        self._count = 0

    def start(self) -> None:
        """Follow the orchestrator, and be ready to write."""
        self._background(self._nodes.follow())
        self._background(self._writer.run())

    async def step(self) -> PassResult:
        """Do all that is due now; the loop comes back at the next slot, or when woken."""
        shards = self._shards.held()
        self._follow_shards(shards)
        if not shards:
            return PassResult(wait_seconds=IDLE_SECONDS)
        if not self._loaded:
            await asyncio.to_thread(self._load)
        await self._follow_models(shards)
        now = self._clock()
        try:
            done = await asyncio.to_thread(self._call_due, shards, now)
        except Exception:
            self._loaded = False  # whether it was committed is not known: read anew how far the slots have come
            raise
        for given, calls in done.given:
            self._hand_out(given)
            for call in calls:
                self._ask(call)
        for part in done.rounds:
            self._begin(part, self._rounds.ask(part))
        if not done.given and not self._tournament:
            await self._refresh_input(now)
        await self._give_up_surplus()
        count, self._count = self._count, 0
        counts = {
            "slots": done.opened,
            "missed": done.missed,
            "interrupted": done.interrupted,
            "rounds": len({part.round_id for part in done.rounds}),
            "predictions": count,
        }
        return PassResult(counts, wait_seconds=self._due.seconds_to_next(self._clock()))

    async def close(self) -> None:
        """Let what is asked be answered for a while, store what came, and disconnect."""
        self._ending = True
        if self._asking:
            await asyncio.wait(self._asking, timeout=DRAIN_SECONDS)
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._writer.flushed()
        await self._lanes.close()
        await self._nodes.close()

    def _follow_shards(self, shards: dict[str, int]) -> None:
        """Connect to the models of the shards that are held now."""
        if shards == self._mine:
            return
        taken = {name for name, epoch in shards.items() if self._mine.get(name) != epoch}
        begun = asyncio.get_running_loop().time()
        self._settling = {name: self._settling.get(name, begun) for name in {*self._settling, *taken} & shards.keys()}
        self._mine = shards
        self._loaded = self._loaded and not taken  # the database may be another than before
        self._presence.forget()
        self._nodes.choose(lambda model_id: shard_of(model_id) in shards)

    def _load(self) -> None:
        with transaction(self._engine) as session:
            self._due.load(session, self._clock())
        self._loaded = True
        log.info("predicting", schedules=len(self._due.schedules), shards=len(self._mine))

    async def _follow_models(self, shards: dict[str, int]) -> None:
        """Write which models there are before any of them is asked, because predictions refer to their rows."""
        now = asyncio.get_running_loop().time()
        for name, since in list(self._settling.items()):
            if self._nodes.settled(partial(_belongs, name)) or (self._nodes.named and now - since > CONNECT_SECONDS):
                del self._settling[name]
        self._warm = self._warm or not self._settling
        settled = shards.keys() - self._settling.keys()
        running = self._nodes.running()
        if self._presence.changes(running, settled):
            await asyncio.to_thread(self._write_presence, shards, running, settled)
            self._presence.written(running, settled)
        await self._lanes.follow(running)

    def _write_presence(self, shards: dict[str, int], running: Running, settled: set[str]) -> None:
        with transaction(self._engine, GroupFence(shards)) as session:
            self._presence.write(session, running, settled, self._clock())

    def _call_due(self, shards: dict[str, int], now: datetime) -> Done:
        """Open what is due, claim what is to be called, end what was left: one transaction."""
        passed_over = self._shards.surplus() | self._settling.keys()
        claimable = {name: epoch for name, epoch in shards.items() if name not in passed_over}
        with transaction(self._engine, GroupFence(shards)) as session:
            now = not_ahead(session, now)
            inputs, missed, progress = self._due.open(session, self._warm, now)
            calls = claim_calls(session, claimable, self._due.schedules, now)
            working = self._working | {call.key for call in calls}
            left = end_left_calls(session, shards, working, now)
            self._signals.make(session, left.slots)
            rounds: list[RoundCall] = []
            if self._tournament:
                rounds = claim_rounds(session, claimable, self._working, self._config.call_method, now)
            by_input: dict[str, list[SlotCall]] = {}
            for call in calls:
                by_input.setdefault(call.input_id, []).append(call)
            given = [
                (inputs.get(input_id) or self._reader.stored(session, input_id, called[0].slot_at), called)
                for input_id, called in by_input.items()
            ]
        self._due.advance(progress)
        return Done(given, rounds, len(inputs), missed, left.predictions)

    async def _give_up_surplus(self) -> None:
        """Release shards that others should have, once nothing is under way in them."""
        idle = self._shards.surplus() - {shard for _, shard in self._working}
        if idle:
            await asyncio.to_thread(self._shards.give_up, idle)

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
        new = given.changed_since(self._input)
        self._input = given
        ticks = {subject: make_call(method, [("JSON", given.encoded[subject])]) for subject in new}
        self._ticks |= ticks
        for lane in self._lanes.all():
            lane.tick(ticks)

    def _welcome(self, lane: Lane) -> None:
        lane.tick(self._ticks)

    def _ask(self, call: SlotCall) -> None:
        """Begin to ask a call's models; those that are away are absent."""
        lanes: dict[str, Lane] = {}
        for model_id in call.model_ids:
            lane = self._lanes.get(model_id)
            if lane is None:
                self._writer.put(call, call.prediction(model_id, ABSENT))
            else:
                lanes[model_id] = lane
        self._begin(call, self._ask_all(call, lanes))

    def _begin(self, call: ShardCall, work: Coroutine[Any, Any, None]) -> None:
        self._working.add(call.key)
        task = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(partial(self._asked, call))

    def _asked(self, call: ShardCall, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a call was not asked to its end", slot_at=call.slot_at, shard=call.shard, exc_info=error)
            self._working.discard(call.key)  # so that the next pass ends it, or goes on with a round

    def _keeps(self, call: ShardCall) -> bool:
        """Whether a call is this worker's to go on with: its shard is held, connected, and not to be given up."""
        settled = self._mine.get(call.shard) == call.epoch and call.shard not in self._settling
        return settled and not self._ending and call.shard not in self._shards.surplus()

    async def _ask_all(self, call: SlotCall, lanes: dict[str, Lane]) -> None:
        """Ask every model at once; each answer is put as it comes, and at the deadline what is missing."""
        left = (call.deadline_at - self._clock()).total_seconds()
        deadline = asyncio.get_running_loop().time() + left
        question = self._due.call_of(call.schedule)
        waiting = {model_id: lane.ask(question, deadline) for model_id, lane in lanes.items()}
        for model_id, answer in waiting.items():
            answer.add_done_callback(partial(self._answered, call, model_id))
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
                self._put(call, model_id, Answer(error=reason, exec_time_ms=max(left, 0) * 1000))
        self._writer.close(call)

    def _answered(self, call: SlotCall, model_id: str, answer: asyncio.Future[Answer]) -> None:
        if not answer.cancelled():
            self._put(call, model_id, answer.result())

    def _put(self, call: SlotCall, model_id: str, answer: Answer) -> None:
        self._writer.put(call, call.prediction(model_id, self._outcomes.of(answer, call.deadline_at)))

    def _written(self, rows: int, done: list[ShardCall]) -> None:
        self._count += rows
        self._working -= {call.key for call in done}


def _belongs(shard: str, model_id: str) -> bool:
    return shard_of(model_id) == shard


@dataclass(frozen=True)
class Done:
    """What a pass did: the calls it claimed, those of slots with their inputs, and counts."""

    given: list[tuple[MarketInput, list[SlotCall]]]
    rounds: list[RoundCall]
    opened: int
    missed: int
    interrupted: int
