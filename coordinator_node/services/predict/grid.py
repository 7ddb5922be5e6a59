"""The schedule grid: when a schedule is due, and how long an answer may take. Pure.

A slot is one due moment of one schedule. Slots lie at `offset + k * interval` from the Unix epoch, so that they neither
drift nor depend on when a worker was started.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from coordinator_node.entities.times import from_epoch

# The share of the horizon that an answer may take, its least seconds, and the share it may never pass.
DEADLINE_SHARE = 0.1
DEADLINE_LEAST_SECONDS = 0.5
DEADLINE_MOST_SHARE = 0.5


@dataclass(frozen=True)
class Schedule:
    """An active schedule with its scope complete: the config's defaults, the schedule's own fields, the horizon."""

    id: str
    scope_key: str
    scope: dict[str, Any] = field(hash=False)
    interval_seconds: int
    horizon_seconds: int
    offset_seconds: float
    deadline_seconds: float

    def slot_at(self, index: int) -> datetime:
        """The time of a slot by its number."""
        return from_epoch(self.offset_seconds + index * self.interval_seconds)

    def index_at(self, now: datetime) -> int:
        """The number of the newest slot at or before a time."""
        return math.floor((now.timestamp() - self.offset_seconds) / self.interval_seconds)

    def first_index_from(self, start: datetime) -> int:
        """The number of the first slot at or after a time."""
        return math.ceil((start.timestamp() - self.offset_seconds) / self.interval_seconds)

    def resolvable_at(self, slot_at: datetime) -> datetime:
        """When the outcome of a slot is known."""
        return slot_at + self._horizon

    @cached_property
    def _horizon(self) -> timedelta:
        return timedelta(seconds=self.horizon_seconds)

    def deadline_at(self, slot_at: datetime) -> datetime:
        """Until when a slot may be called and its answers are taken."""
        return slot_at + timedelta(seconds=self.deadline_seconds)


def deadline_seconds(horizon_seconds: float, timeout_seconds: float, own_seconds: float | None = None) -> float:
    """Seconds that an answer may take: the smallest of the runner's timeout, the schedule's own, and the horizon's.

    The horizon's is a tenth of it, at least 0.5 s, never more than half; a horizon of 0 sets none.
    """
    bounds = [timeout_seconds]
    if own_seconds is not None:
        bounds.append(own_seconds)
    if horizon_seconds > 0:
        share = max(horizon_seconds * DEADLINE_SHARE, DEADLINE_LEAST_SECONDS)
        bounds.append(min(share, horizon_seconds * DEADLINE_MOST_SHARE))
    return min(bounds)
