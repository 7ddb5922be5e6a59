"""Observations of a venue, brought to one record an interval; pure.

An interval of `size_ms` milliseconds starts at a multiple of its size, counted from the Unix epoch. What a stream
showed and what the history holds are sampled by the same rules, so that a record does not depend on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Observation:
    """One trade, price update, book or settlement, at the venue's own time in epoch milliseconds.

    `order` rises from one observation of a subject to the next and is never used twice. `follows` is the order of the
    observation just before it, where the venue says so: None where it does not.
    """

    time_ms: int
    order: int
    price: Decimal
    volume: Decimal = Decimal(0)
    follows: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bar:
    """What was observed in one interval; `last` is its last observation, whose price is the close."""

    start_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    last: Observation

    @property
    def close(self) -> Decimal:
        """The last price."""
        return self.last.price


@dataclass(frozen=True, slots=True)
class Span:
    """Intervals that are over, from `start_ms` up to `end_ms`, with all that was seen in them.

    Where `whole` is False something in them was not seen: what they hold is to be asked of the history. Otherwise
    `bar` is the only interval among them with an observation, or None where none has one.
    """

    start_ms: int
    end_ms: int
    bar: Bar | None
    whole: bool


def floor_ms(time_ms: int, size_ms: int) -> int:
    """The start of the interval that a time is in."""
    return time_ms // size_ms * size_ms


def ceil_ms(time_ms: int, size_ms: int) -> int:
    """The first start of an interval at or after a time."""
    return -(-time_ms // size_ms) * size_ms


class IntervalSampler:
    """Samples the observations of one subject as they come, and knows what of them was not seen."""

    def __init__(self, size_ms: int, start_ms: int) -> None:
        """`start_ms` is the start of the interval in which the stream began, part of which was therefore missed."""
        self._size = size_ms
        self._start = start_ms
        self._bar: Bar | None = None
        self._whole = False
        self._last_order: int | None = None

    @property
    def start_ms(self) -> int:
        """The start of the running interval; everything before it is over."""
        return self._start

    def add(self, seen: Observation) -> Span | None:
        """Takes the stream's next observation; the intervals that it shows to be over, if it does.

        One that is out of order or was seen before changes nothing.
        """
        if self._last_order is not None and seen.order <= self._last_order:
            return None
        unbroken = self._last_order is not None and seen.follows in (None, self._last_order)
        self._last_order = seen.order
        self._whole = self._whole and unbroken
        start = floor_ms(seen.time_ms, self._size)
        if start < self._start:
            return None
        if start == self._start:
            self._bar = _begun(start, seen) if self._bar is None else _extended(self._bar, seen)
            return None
        over = Span(self._start, start, self._bar, self._whole)
        self._start, self._bar, self._whole = start, _begun(start, seen), unbroken
        return over

    def skip_to(self, start_ms: int) -> None:
        """Leaves out what is before `start_ms`, the start of an interval: the history has answered for it."""
        if start_ms > self._start:
            # What was observed at or after it would have moved the sampler on.
            self._start, self._bar, self._whole = start_ms, None, self._last_order is not None

    def cut(self) -> Bar | None:
        """The running interval as it is, which counts as over from now on; None where nothing was seen in it."""
        bar = self._bar
        if bar is not None:
            self.skip_to(self._start + self._size)
        return bar


def _begun(start_ms: int, seen: Observation) -> Bar:
    return Bar(start_ms, open=seen.price, high=seen.price, low=seen.price, volume=seen.volume, last=seen)


def _extended(bar: Bar, seen: Observation) -> Bar:
    return replace(
        bar,
        high=max(bar.high, seen.price),
        low=min(bar.low, seen.price),
        volume=bar.volume + seen.volume,
        last=seen,
    )
