"""Which slots are due, and what becomes of each: called while there is time, else missed with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.schedules import sync_schedules
from coordinator_node.entities.json_values import storable_text
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.predict.grid import Schedule
from coordinator_node.services.predict.model_nodes import Call, make_call
from coordinator_node.services.predict.presence import Presence
from coordinator_node.services.predict.raw_input import InputBuilderError, InputReader, MarketInput
from coordinator_node.services.predict.schedules import active_schedules
from coordinator_node.services.predict.slots import (
    MISSED_AT_ONCE,
    OpenSlot,
    end_interrupted,
    last_slot_at,
    miss_slots,
    open_slot,
)

# How often a slot that cannot be called yet, though it is due, is looked at again.
BLOCKED_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 1.0

TOO_LATE = "too late: its deadline had passed before it could be called"
NO_MODELS_YET = "the model orchestrator has not been reached"
NO_MODELS = "no model is known"
NO_INPUT = "no feed record is known"

# The number of the next slot of each schedule.
Progress = dict[str, int]


@dataclass(frozen=True)
class Opened:
    """A slot that was opened, with what its models are given."""

    slot: OpenSlot
    given: MarketInput


class DueSlots:
    """The schedules, and how far the slots of each have come."""

    def __init__(self, config: CrunchConfig, settings: Settings, reader: InputReader, presence: Presence) -> None:
        self._config = config
        self._settings = settings
        self._reader = reader
        self._presence = presence
        self._next: Progress = {}
        self._blocked: dict[str, str] = {}
        self._calls: dict[str, Call] = {}
        self.schedules: list[Schedule] = []

    def take_over(self, session: Session, fence: LeaseFence, working: list[str], now: datetime) -> int:
        """Load the schedules, and end what earlier callers left; returns how many predictions that ended.

        `working` are the slots that this process is still asking, which are left alone.
        """
        sync_schedules(session, self._config.scheduled_predictions, now)
        ended = end_interrupted(session, fence.name, working, now)
        found = active_schedules(session, self._config, self._settings)
        self.schedules = [schedule for schedule, _ in found]
        self._blocked.clear()
        for schedule, activated_at in found:
            last = last_slot_at(session, schedule.id)
            first = schedule.first_index_from(activated_at)
            self._next[schedule.id] = first if last is None else max(first, schedule.index_at(last) + 1)
            self._calls[schedule.id] = self._predict_call(schedule)
        return ended

    def call_of(self, schedule: Schedule) -> Call:
        """What a model is asked in the slots of a schedule."""
        return self._calls[schedule.id]

    def any(self, now: datetime) -> bool:
        """Whether any slot is due that has no row."""
        return any(schedule.index_at(now) >= self._next[schedule.id] for schedule in self.schedules)

    def open(
        self, session: Session, fence: LeaseFence, present: set[str] | None, now: datetime
    ) -> tuple[list[Opened], int, Progress]:
        """Write the rows of all due slots.

        Args:
            session: what it writes with; the caller commits, and then passes the progress to `advance`.
            fence: the lease and epoch that the calls are written under.
            present: the connected models; None while it is not known who is there.
            now: the time.

        Returns:
            The slots to call, how many were missed, and how far each schedule has come.
        """
        opened: list[Opened] = []
        missed = 0
        progress = dict(self._next)
        for schedule in self.schedules:
            newest = schedule.index_at(now)
            late = self._late(schedule, progress[schedule.id], newest, now)
            if late:
                reason = self._blocked.pop(schedule.id, TOO_LATE)
                missed += miss_slots(session, schedule, late, reason, now)
                progress[schedule.id] = late.stop
            if len(late) == MISSED_AT_ONCE:
                continue
            for index in range(progress[schedule.id], newest + 1):
                item = self._open_one(session, fence, schedule, index, present, now)
                if item is None:
                    break
                opened.append(item)
                progress[schedule.id] = index + 1
        return opened, missed, progress

    def advance(self, progress: Progress) -> None:
        """Take note of what was committed."""
        self._next = progress

    def seconds_to_next(self, now: datetime) -> float:
        """How long nothing is due for."""
        if self.any(now):
            return BLOCKED_SECONDS
        waits = [(s.slot_at(self._next[s.id]) - now).total_seconds() for s in self.schedules]
        return max(0.001, min([LONGEST_WAIT_SECONDS, *waits]))

    def _late(self, schedule: Schedule, first: int, newest: int, now: datetime) -> range:
        callable_from = schedule.first_index_from(now - timedelta(seconds=schedule.deadline_seconds))
        return range(first, max(first, min(callable_from, newest + 1, first + MISSED_AT_ONCE)))

    def _open_one(
        self,
        session: Session,
        fence: LeaseFence,
        schedule: Schedule,
        index: int,
        present: set[str] | None,
        now: datetime,
    ) -> Opened | None:
        slot_at = schedule.slot_at(index)
        absent = self._presence.absent(present or set(), now)
        if present is None or not (present or absent):
            self._blocked[schedule.id] = NO_MODELS_YET if present is None else NO_MODELS
            return None
        try:
            given = self._reader.read(session, slot_at)
        except InputBuilderError as error:
            self._blocked[schedule.id] = storable_text(str(error))
            return None
        if given is None:
            self._blocked[schedule.id] = NO_INPUT
            return None
        self._blocked.pop(schedule.id, None)
        slot = open_slot(
            session,
            schedule,
            slot_at,
            raw_data=given.raw_data(),
            present=present,
            absent=absent,
            fence=fence,
            now=now,
        )
        return Opened(slot, given)

    def _predict_call(self, schedule: Schedule) -> Call:
        method = self._config.call_method
        return make_call(method.method, [(arg.type, schedule.scope.get(arg.name)) for arg in method.args])
