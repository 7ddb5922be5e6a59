"""Which slots are due, and what becomes of each: called while there is time, else missed with the reason."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.schedules import sync_schedules
from coordinator_node.entities.json_values import storable_text
from coordinator_node.services.model_shards import known_models
from coordinator_node.services.predict.grid import Schedule
from coordinator_node.services.predict.model_nodes import Call, make_call
from coordinator_node.services.predict.raw_input import InputBuilderError, InputReader, MarketInput
from coordinator_node.services.predict.schedules import active_schedules
from coordinator_node.services.predict.slots import (
    MISSED_AT_ONCE,
    last_slot_at,
    miss_slots,
    open_slot,
    slot_exists,
)
from coordinator_node.services.tournament_predict import is_tournament

# How often a slot that cannot be called yet, though it is due, is looked at again.
BLOCKED_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 1.0

TOO_LATE = "too late: its deadline had passed before it could be called"
NO_MODELS_YET = "the model orchestrator has not been reached"
NO_MODELS = "no model is known"
NO_INPUT = "no feed record is known"

# The number of the next slot of each schedule.
Progress = dict[str, int]


class DueSlots:
    """The schedules, and how far the slots of each have come."""

    def __init__(self, config: CrunchConfig, settings: Settings, reader: InputReader) -> None:
        self._config = config
        self._settings = settings
        self._reader = reader
        self._next: Progress = {}
        self._blocked: dict[str, str] = {}
        self._calls: dict[str, Call] = {}
        self.schedules: dict[str, Schedule] = {}

    def load(self, session: Session, now: datetime) -> None:
        """Bring the schedules in step with the config, and find how far the slots of each have come.

        In tournament mode none runs.
        """
        sync_schedules(session, [] if is_tournament(self._config) else self._config.scheduled_predictions, now)
        found = active_schedules(session, self._config, self._settings)
        self.schedules = {schedule.id: schedule for schedule, _ in found}
        self._blocked.clear()
        for schedule, activated_at in found:
            last = last_slot_at(session, schedule.id)
            first = schedule.first_index_from(activated_at)
            self._next[schedule.id] = first if last is None else max(first, schedule.index_at(last) + 1)
            self._calls[schedule.id] = self._predict_call(schedule)

    def call_of(self, schedule: Schedule) -> Call:
        """What a model is asked in the slots of a schedule."""
        return self._calls[schedule.id]

    def any(self, now: datetime) -> bool:
        """Whether any slot is due that has not been dealt with."""
        return any(schedule.index_at(now) >= self._next[schedule.id] for schedule in self.schedules.values())

    def open(self, session: Session, ready: bool, now: datetime) -> tuple[dict[str, MarketInput], int, Progress]:
        """Write the rows of all due slots that have none.

        Args:
            session: what it writes with; the caller commits, and then passes the progress to `advance`.
            ready: whether it is known which models are there; before that, a slot waits.
            now: the time.

        Returns:
            The inputs of the slots that were opened, by id; how many were missed; and how far each schedule has come.
        """
        inputs: dict[str, MarketInput] = {}
        missed = 0
        progress = dict(self._next)
        for schedule in self.schedules.values():
            newest = schedule.index_at(now)
            late = self._late(schedule, progress[schedule.id], newest, now)
            if late:
                missed += miss_slots(session, schedule, late, self._blocked.pop(schedule.id, TOO_LATE), now)
                progress[schedule.id] = late.stop
            if len(late) == MISSED_AT_ONCE:
                continue
            for index in range(progress[schedule.id], newest + 1):
                if not self._open_one(session, schedule, schedule.slot_at(index), ready, now, inputs):
                    break
                progress[schedule.id] = index + 1
        return inputs, missed, progress

    def advance(self, progress: Progress) -> None:
        """Take note of what was committed."""
        self._next = progress

    def seconds_to_next(self, now: datetime) -> float:
        """How long nothing is due for."""
        if self.any(now):
            return BLOCKED_SECONDS
        waits = [(s.slot_at(self._next[s.id]) - now).total_seconds() for s in self.schedules.values()]
        return max(0.001, min([LONGEST_WAIT_SECONDS, *waits]))

    def _late(self, schedule: Schedule, first: int, newest: int, now: datetime) -> range:
        callable_from = schedule.first_index_from(now - timedelta(seconds=schedule.deadline_seconds))
        return range(first, max(first, min(callable_from, newest + 1, first + MISSED_AT_ONCE)))

    def _open_one(
        self,
        session: Session,
        schedule: Schedule,
        slot_at: datetime,
        ready: bool,
        now: datetime,
        inputs: dict[str, MarketInput],
    ) -> bool:
        """Open a slot, or find it open; False while that cannot be done yet, with the reason kept."""
        if slot_exists(session, schedule, slot_at):
            return True
        models_of_shards = known_models(session, now) if ready else {}
        if not models_of_shards:
            return self._wait(schedule, NO_MODELS if ready else NO_MODELS_YET)
        try:
            given = self._reader.read(session, slot_at)
        except InputBuilderError as error:
            return self._wait(schedule, storable_text(str(error)))
        if given is None:
            return self._wait(schedule, NO_INPUT)
        self._blocked.pop(schedule.id, None)
        input_id = open_slot(
            session, schedule, slot_at, raw_data=given.raw_data(), models_of_shards=models_of_shards, now=now
        )
        if input_id is not None:
            inputs[input_id] = given
        return True

    def _wait(self, schedule: Schedule, reason: str) -> bool:
        self._blocked[schedule.id] = reason
        return False

    def _predict_call(self, schedule: Schedule) -> Call:
        method = self._config.call_method
        return make_call(method.method, [(arg.type, schedule.scope.get(arg.name)) for arg in method.args])
