"""The leader's memory of what the models said and what came of it: the rolling window that metrics are taken over.

It is filled from the database once and then fed with each cycle's new scores, so that a cycle costs what is new. Of
each model it keeps the newest NEWEST_OBSERVATIONS, as arrays; whole rows only where something needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator_node.db.json_text import parse_object
from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.observations import EntryKey
from coordinator_node.metrics.running_ranks import RunningRanks
from coordinator_node.metrics.values import as_number, return_of, score_of, signal_of

NEWEST_OBSERVATIONS = 5000
"""How many observations of a model are looked at, the newest ones."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SPARE_ENTRIES = 10_000
"""So many entries may gather that no window holds, before they are cleared away."""


class Observation(NamedTuple):
    """One scored prediction.

    `ground_truth` has what may be its return, `scope` is JSON text, `weights` are what an ensemble's members weighed.
    """

    model_id: str
    input_id: str
    scope_key: str
    performed_at: datetime
    resolvable_at: datetime
    output: dict[str, Any]
    result: dict[str, Any]
    ground_truth: dict[str, Any]
    scope: str | None
    scored_at: datetime
    weights: dict[str, float] | None = None

    @property
    def order(self) -> tuple[datetime, str, str]:
        """Which of a model's observations are the newest: by when they resolved, then by what they were made of."""
        return self.resolvable_at, self.scope_key, self.input_id

    def rows(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The prediction and its score in the shapes of public.md."""
        keys = {"input_id": self.input_id, "scope_key": self.scope_key}
        prediction = {
            "inference_output": self.output,
            "performed_at": self.performed_at,
            "scope": parse_object(self.scope),
            **keys,
        }
        if self.weights is not None:
            prediction["meta"] = {"weights": self.weights}
        score = {"result": self.result, "scored_at": self.scored_at, "ground_truth": self.ground_truth, **keys}
        return prediction, score


@dataclass
class ModelWindow:
    """One model's observations in the order of `Observation.order`; all arrays are of one length."""

    entries: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """The number of each one's (input, scope) among all."""
    resolved: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """When each outcome was known, in microseconds since 1970."""
    values: Floats = field(default_factory=lambda: np.empty((3, 0)))
    """Signals, scores and returns; NaN where there is none."""
    weights: list[tuple[tuple[str, ...], Floats] | None] = field(default_factory=list)
    """What the members weighed, of an ensemble; empty for a real model."""
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    """The whole rows, where they are kept; else empty."""
    forgotten: int = 0
    """How many older ones were there before the first."""
    running_ranks: RunningRanks = field(default_factory=RunningRanks)

    def between(self, after: datetime, until: datetime) -> slice:
        """Which observations resolved in (after, until]."""
        bounds = np.array([micros(after), micros(until)])
        first, last = np.searchsorted(self.resolved, bounds, side="right")
        return slice(int(first), int(last))

    def ranks(self, part: slice) -> Floats:
        """The ranks of a part's signals among themselves; costs what has changed since the last time."""
        return self.running_ranks.of(self.values[0, part], self.forgotten + part.start)

    def reordered(self, order: NDArray[np.intp]) -> None:
        """Take up another order, or a part of what there is."""
        self.entries, self.resolved, self.values = self.entries[order], self.resolved[order], self.values[:, order]
        self.weights = [self.weights[place] for place in order] if self.weights else []
        self.rows = [self.rows[place] for place in order] if self.rows else []
        self.running_ranks = RunningRanks()

    def keep_from(self, first: int) -> None:
        """Forget the oldest ones, those before place `first`."""
        self.entries, self.resolved, self.values = self.entries[first:], self.resolved[first:], self.values[:, first:]
        self.weights, self.rows = self.weights[first:], self.rows[first:]
        self.forgotten += first


class ObservationStore:
    """All models' windows, and the entries that they have in common.

    Args:
        keep_rows: whether predictions and scores are kept whole, for metrics and strategies of the operator's own.
    """

    def __init__(self, *, keep_rows: bool = False) -> None:
        self.keeps_rows = keep_rows
        self.models: dict[str, ModelWindow] = {}
        self._numbers: dict[EntryKey, int] = {}
        self._keys: list[EntryKey] = []
        self._performed: list[int] = []
        self._clear_above = _SPARE_ENTRIES

    @property
    def entry_count(self) -> int:
        """How many entries are numbered: those of `ModelWindow.entries` are below it."""
        return len(self._keys)

    def performed(self, entries: NDArray[np.intp]) -> NDArray[np.int64]:
        """When the models were asked at these entries, in microseconds since 1970."""
        return np.array([self._performed[entry] for entry in entries], dtype=np.int64)

    def keys(self, entries: Iterable[int]) -> list[EntryKey]:
        """(input_id, scope_key) of these entries."""
        return [self._keys[entry] for entry in entries]

    def feed(self, observations: Iterable[Observation]) -> None:
        """Add observations; one whose entry its model has already is left out."""
        by_model: dict[str, list[Observation]] = {}
        for observation in observations:
            by_model.setdefault(observation.model_id, []).append(observation)
        for model_id, own in by_model.items():
            window = self.models.setdefault(model_id, ModelWindow())
            self._append(window, sorted(own, key=lambda observation: observation.order))
            window.keep_from(max(window.resolved.size - NEWEST_OBSERVATIONS, 0))
        self._clear_entries()

    def forget_before(self, moment: datetime) -> None:
        """Drop what resolved at or before a moment, and models that have nothing left."""
        bound = micros(moment)
        for model_id, window in list(self.models.items()):
            window.keep_from(int(np.searchsorted(window.resolved, bound, side="right")))
            if not window.resolved.size:
                del self.models[model_id]

    def _append(self, window: ModelWindow, added: Sequence[Observation]) -> None:
        numbers = [self._number(observation) for observation in added]
        new = _not_among(window.entries, numbers)
        if len(new) < len(added):
            added, numbers = [added[place] for place in new], [numbers[place] for place in new]
        if not added:
            return
        in_order = not window.resolved.size or micros(added[0].resolvable_at) > window.resolved[-1]
        window.entries = np.append(window.entries, np.array(numbers, dtype=np.intp))
        resolved = np.array([micros(observation.resolvable_at) for observation in added], dtype=np.int64)
        window.resolved = np.append(window.resolved, resolved)
        window.values = np.hstack([window.values, _numbers_of(added)])
        if is_ensemble_model(added[0].model_id):
            window.weights += [_packed(observation.weights) for observation in added]
        if self.keeps_rows:
            window.rows += [observation.rows() for observation in added]
        if not in_order:
            self._sort(window)

    def _sort(self, window: ModelWindow) -> None:
        keys = [(self._keys[entry][1], self._keys[entry][0]) for entry in window.entries]
        order = sorted(range(len(keys)), key=lambda place: (window.resolved[place], keys[place]))
        window.reordered(np.array(order, dtype=np.intp))

    def _number(self, observation: Observation) -> int:
        key = (observation.input_id, observation.scope_key)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._keys)
            self._keys.append(key)
            self._performed.append(micros(observation.performed_at))
        return number

    def _clear_entries(self) -> None:
        """Number anew the entries that some window still holds, once as many and more are held by none."""
        if len(self._keys) <= self._clear_above:
            return
        held = np.zeros(len(self._keys), dtype=np.bool_)
        for window in self.models.values():
            held[window.entries] = True
        kept = np.flatnonzero(held)
        renumbered = np.cumsum(held) - 1
        for window in self.models.values():
            window.entries = renumbered[window.entries]
        self._keys = [self._keys[entry] for entry in kept]
        self._performed = [self._performed[entry] for entry in kept]
        self._numbers = {key: number for number, key in enumerate(self._keys)}
        self._clear_above = 2 * len(self._keys) + _SPARE_ENTRIES


def micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z."""
    return (moment - _EPOCH) // _MICROSECOND


def _not_among(entries: NDArray[np.intp], numbers: Sequence[int]) -> list[int]:
    """The places of the numbers that are not among the entries, of equal ones the first."""
    there = set(numbers) & set(entries.tolist()) if _may_be_among(entries, numbers) else set()
    places: list[int] = []
    for place, number in enumerate(numbers):
        if number not in there:
            there.add(number)
            places.append(place)
    return places


def _may_be_among(entries: NDArray[np.intp], numbers: Sequence[int]) -> bool:
    return bool(entries.size) and min(numbers) <= int(entries.max())


def _numbers_of(observations: Sequence[Observation]) -> Floats:
    found = np.array(
        [(signal_of(o.output), score_of(o.result), return_of(o.result, o.ground_truth)) for o in observations],
        dtype=np.float64,
    )
    return found.T


def _packed(weights: dict[str, float] | None) -> tuple[tuple[str, ...], Floats] | None:
    if weights is None:
        return None
    numbers = {model_id: as_number(weight) or 0.0 for model_id, weight in weights.items()}
    return tuple(numbers), np.array(list(numbers.values()))
