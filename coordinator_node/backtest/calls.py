"""Calls of a model in this process that come to what a model node and the coordinator make of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from model_runner_client.utils.datatype_transformer import decode_data, detect_data_type, encode_data

from coordinator_node.crunch_config import CallMethodConfig
from coordinator_node.entities.errors import RAISED_BY_CALLABLES, ConfigurationError
from coordinator_node.entities.json_values import is_plain, reason_of
from coordinator_node.local.model_host import plain
from coordinator_node.services.predict.answers import MAX_ANSWER_BYTES
from coordinator_node.services.predict.grid import Schedule
from coordinator_node.services.predict.lanes import Answer
from coordinator_node.services.predict.model_nodes import make_call

# So many numbers under names that are so short are fewer bytes than MAX_ANSWER_BYTES.
_MOST_PLAIN, _LONGEST_NAME = 1000, 100


class ModelCalls:
    """One model's two methods. `seconds` is the time spent in the model's own code.

    Args:
        model: the model.
        method: the competition's call_method.
        ticked: whether it is given new input at all; else it needs no method for that.

    Raises:
        ConfigurationError: when made: the model lacks one of them, which live stops it.
    """

    def __init__(self, model: Any, method: CallMethodConfig, *, ticked: bool = True) -> None:
        self._tick = _method_of(model, method.tick_method) if ticked else None
        self._predict = _method_of(model, method.method)
        self._method = method
        self._arguments: dict[str, tuple[Any, ...]] = {}
        self.seconds = 0.0
        self.failed_ticks = 0
        self.tick_problem: str | None = None

    def tick(self, document: dict[str, Any]) -> None:
        """Hand over new input; what the model raises is counted, and the first of it kept, as live."""
        if self._tick is None:
            return
        begun = time.perf_counter()
        try:
            self._tick(document)
        except RAISED_BY_CALLABLES as error:  # the model's code may raise anything; it costs it this input
            self.failed_ticks += 1
            self.tick_problem = self.tick_problem or reason_of(error)
        self.seconds += time.perf_counter() - begun

    def ask(self, schedule: Schedule) -> Answer:
        """What the model answers in a slot of a schedule, or why it does not."""
        return self._ask(self._arguments_of(schedule))

    def ask_with(self, arguments: list[tuple[str, Any]]) -> Answer:
        """What the model answers to (type, value) arguments, or why it does not."""
        return self._ask(_arrived(self._method.method, arguments))

    def _ask(self, arguments: tuple[Any, ...]) -> Answer:
        begun = time.perf_counter()
        try:
            value = self._predict(*arguments)
        except RAISED_BY_CALLABLES as error:  # the model's code may raise anything; it costs this prediction
            taken = self._taken(begun)
            return Answer(error=f"FAILED: {reason_of(error)}", exec_time_ms=taken)
        taken = self._taken(begun)
        return _received(value, taken, self._method.method)

    def _taken(self, begun: float) -> float:
        seconds = time.perf_counter() - begun
        self.seconds += seconds
        return seconds * 1000

    def _arguments_of(self, schedule: Schedule) -> tuple[Any, ...]:
        """The arguments as they arrive: what may be changed is made anew for every call."""
        kept = self._arguments.get(schedule.id)
        if kept is None:
            pairs = [(arg.type, schedule.scope.get(arg.name)) for arg in self._method.args]
            kept = _arrived(self._method.method, pairs)
            if not any(isinstance(value, dict | list) for value in kept):
                self._arguments[schedule.id] = kept
        return kept


def _arrived(method: str, pairs: list[tuple[str, Any]]) -> tuple[Any, ...]:
    """The arguments as they arrive at a model node, the model's own."""
    call = make_call(method, pairs)
    return tuple(decode_data(argument.data.value, argument.data.type) for argument in call.arguments)


def _method_of(model: Any, name: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(model, name, None)
    if name.startswith("_") or not callable(method):
        raise ConfigurationError(f"{type(model).__name__} has no method {name!r}, which the competition calls")
    return method


def _received(value: Any, taken: float, method: str) -> Answer:
    if is_plain(value) and len(value) < _MOST_PLAIN and max(map(len, value), default=0) < _LONGEST_NAME:
        return Answer(value=value, exec_time_ms=taken)  # what JSON would bring
    try:
        sent = plain(value)
        kind = detect_data_type(sent)
        data = encode_data(kind, sent)
    except Exception as error:  # an answer may be anything, and so may be what encoding it raises
        return Answer(error=f"FAILED: the result of {method} cannot be sent: {error}", exec_time_ms=taken)
    if len(data) > MAX_ANSWER_BYTES:
        return Answer(error=f"answer of {len(data)} bytes is larger than {MAX_ANSWER_BYTES}", exec_time_ms=taken)
    return Answer(value=decode_data(data, kind), exec_time_ms=taken)
