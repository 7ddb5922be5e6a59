"""A lane for each model: its calls one after another, so that a slow model delays nobody but itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from model_runner_client.model_runners import DynamicSubclassModelRunner

from coordinator_node.config.settings import Settings
from coordinator_node.entities.json_values import reason_of
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.predict.model_nodes import AUTHENTICATION, Call, ModelCallError, ModelNodes, call_model
from coordinator_node.services.predict.presence import Running

log = get_logger(__name__)

# How soon a node is asked again that was busy with a call that has timed out.
BUSY_SECONDS = 0.2


class Answer(NamedTuple):
    """What a model said to one call, or why it said nothing; `exec_time_ms` is the call's own time."""

    value: Any = None
    error: str | None = None
    exec_time_ms: float = 0.0


@dataclass(frozen=True)
class Ask:
    """A call that someone waits for until `deadline`, a time of the event loop's clock; None: any time."""

    call: Call
    deadline: float | None
    answer: asyncio.Future[Answer]


@dataclass
class Lane:
    """One connected model. At most one call is in flight; of several ticks only the newest is sent."""

    runner: DynamicSubclassModelRunner
    nodes: ModelNodes
    settings: Settings
    failures: int = 0
    timeouts: int = 0
    _ticks: dict[str, Call] = field(default_factory=dict)
    _asks: deque[Ask] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work off what is asked."""
        self._task = asyncio.create_task(self._run())

    def tick(self, calls: dict[str, Call]) -> None:
        """Send the newest input of each subject as soon as the model is free, and before any later call."""
        self._ticks.update(calls)
        self._wake.set()

    def ask(self, call: Call, deadline: float | None = None) -> asyncio.Future[Answer]:
        """Call the model once it is free; the future is cancelled by who no longer waits.

        Without a deadline the call may take the runner's timeout, however long it has to wait for its turn.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asks.append(Ask(call, deadline, answer))
        self._wake.set()
        return answer

    async def close(self) -> None:
        """End at once: what waits is answered with an error."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for ask in self._asks:
            if not ask.answer.done():
                ask.answer.set_result(Answer(error="the model went away"))
        self._asks.clear()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._ticks or self._asks:
                await self._send_ticks()
                if self._asks:
                    await self._send(self._asks.popleft())

    async def _send_ticks(self) -> None:
        # Those that wait now: what comes while they are sent waits for its turn, so that a model slow to tick is asked.
        for subject in list(self._ticks):
            call = self._ticks.pop(subject)
            await self._call(call, self.settings.model_runner_timeout_seconds)

    async def _send(self, ask: Ask) -> None:
        left = self.settings.model_runner_timeout_seconds
        if ask.deadline is not None:
            left = ask.deadline - asyncio.get_running_loop().time()
        if ask.answer.done() or left <= 0:
            return
        try:
            answer = await self._call(ask.call, left)
        except asyncio.CancelledError:
            if not ask.answer.done():
                ask.answer.set_result(Answer(error="the model went away"))
            raise
        if not ask.answer.done():
            ask.answer.set_result(answer)

    async def _call(self, call: Call, timeout_seconds: float) -> Answer:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            value = await self._answer(call, begun + timeout_seconds)
        except ModelCallError as error:
            self._count(error, call)
            return Answer(error=str(error), exec_time_ms=(loop.time() - begun) * 1000)
        except Exception as error:  # whatever a connection raises costs this call; the lane goes on
            log.exception("model call broke", model_id=self.runner.model_id, method=call.method)
            return Answer(error=reason_of(error), exec_time_ms=(loop.time() - begun) * 1000)
        self.failures = self.timeouts = 0
        return Answer(value=value, exec_time_ms=(loop.time() - begun) * 1000)

    async def _answer(self, call: Call, deadline: float) -> Any:
        """What the model answers; a node that is still busy with a call that timed out is asked until it is free.

        Else one slow call would cost a round all the rows behind it, and the model its place, as failing for ever.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await call_model(self.runner, call, deadline - loop.time())
            except ModelCallError as error:
                if not error.busy or loop.time() + BUSY_SECONDS >= deadline:
                    raise
            await asyncio.sleep(BUSY_SECONDS)

    def _count(self, error: ModelCallError, call: Call) -> None:
        if error.timed_out:
            self.timeouts += 1
        else:
            self.failures += 1
        log.debug("model call failed", model_id=self.runner.model_id, method=call.method, reason=str(error))
        if error.code == "FAILED_PRECONDITION":
            self.nodes.reconnect(self.runner)
        elif error.code == "BAD_IMPLEMENTATION":
            self.nodes.report_failure(self.runner, "BAD_IMPLEMENTATION", str(error))
        elif error.code == AUTHENTICATION:
            self.nodes.report_failure(self.runner, "CONNECTION_FAILED", str(error))
        elif _over(self.failures, self.settings.model_runner_max_consecutive_failures):
            self.nodes.report_failure(self.runner, "MULTIPLE_FAILED", str(error))
        elif _over(self.timeouts, self.settings.model_runner_max_consecutive_timeouts):
            self.nodes.report_failure(self.runner, "MULTIPLE_TIMEOUT", str(error))


def _over(count: int, limit: int) -> bool:
    """Whether a limit is passed; 0 sets none."""
    return bool(limit) and count > limit


class Lanes:
    """The lanes of all connected models, kept in step with the nodes. `on_join` gives a newcomer its first ticks."""

    def __init__(self, nodes: ModelNodes, settings: Settings, on_join: Callable[[Lane], None]) -> None:
        self._nodes = nodes
        self._settings = settings
        self._on_join = on_join
        self._lanes: dict[str, Lane] = {}

    def get(self, model_id: str) -> Lane | None:
        """The lane of a model; None when it is not connected."""
        return self._lanes.get(model_id)

    def ids(self) -> set[str]:
        """The connected models."""
        return set(self._lanes)

    def all(self) -> list[Lane]:
        """Every lane."""
        return list(self._lanes.values())

    async def follow(self, running: Running) -> None:
        """Open lanes for models that have come, close those of models that have gone or are connected anew."""
        gone = [lane for model_id, lane in self._lanes.items() if running.get(model_id) is not lane.runner]
        for lane in gone:
            del self._lanes[lane.runner.model_id]
        await asyncio.gather(*(lane.close() for lane in gone))
        for model_id, runner in running.items():
            if model_id not in self._lanes:
                lane = Lane(runner, self._nodes, self._settings)
                self._lanes[model_id] = lane
                self._on_join(lane)
                lane.start()

    async def close(self) -> None:
        """Close every lane."""
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        self._lanes.clear()
