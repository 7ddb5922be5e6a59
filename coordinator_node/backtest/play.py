"""Plays a model over a history: the moments of the feed and the slots of the schedules, in order of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator_node.backtest.calls import ModelCalls
from coordinator_node.backtest.history import History
from coordinator_node.backtest.market import Market
from coordinator_node.backtest.stored import as_stored
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.schedules import schedule_name
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.json_values import storable
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus
from coordinator_node.schemas.payload_contracts import ScheduleEnvelope
from coordinator_node.services.predict.grid import Schedule
from coordinator_node.services.predict.outcomes import Outcomes
from coordinator_node.services.predict.schedules import check_schedules, complete_scope, make_schedule

type Progress = Callable[[float], None]
"""Is told how much of the work is done, from 0 to 1."""

REPORTS = 100
_STATUSES = {status.value: status for status in PredictionStatus}


@dataclass(slots=True)
class Played:
    """One prediction: its row, why it failed (None where it did not), and what horizon 0 is judged by."""

    record: PredictionRecord
    failed_reason: str | None
    given: dict[str, Any] | None = None


@dataclass
class Play:
    """What came of playing: predictions in the order of their slots, and the slots nobody could be asked in.

    `missed` counts these by reason. `late` counts answers that took longer than the schedule's deadline on this
    machine: live they would have been FAILED "timeout", here they count. `bars` are the records that became known.
    """

    predictions: list[Played] = field(default_factory=list)
    missed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    late: int = 0
    bars: int = 0
    model_seconds: float = 0.0
    failed_ticks: int = 0
    tick_problem: str | None = None


def schedules_of(config: CrunchConfig, settings: Settings, spacing_seconds: float) -> list[Schedule]:
    """The active schedules in the operator's order, as the predict stage has them, of the settings' subjects only.

    Raises:
        ConfigurationError: the competition has no schedule to play, or one that a predict worker would refuse.
    """
    check_schedules(config, settings, spacing_seconds)
    active = sorted(
        (each.order, schedule_name((each.scope_key, each.prediction_interval_seconds, each.resolve_horizon_seconds)), n)
        for n, each in enumerate(config.scheduled_predictions)
        if each.active
    )
    if not active:
        raise ConfigurationError("the config has no active schedule, so no model would ever be asked")
    made = []
    for _, name, place in active:
        each = config.scheduled_predictions[place]
        envelope = ScheduleEnvelope(
            prediction_interval_seconds=each.prediction_interval_seconds,
            resolve_horizon_seconds=each.resolve_horizon_seconds,
        )
        scope = complete_scope(config, storable(each.scope, "scope"), envelope)
        made.append(make_schedule(name, each.scope_key, scope, envelope, storable(each.meta, "meta"), settings))
    return made


def slots_between(schedules: Sequence[Schedule], start: datetime, end: datetime) -> list[tuple[datetime, Schedule]]:
    """The slots in [start, end) in order of time; of one moment, in that of the schedules."""
    found = []
    for place, schedule in enumerate(schedules):
        moments = map(schedule.slot_at, range(schedule.first_index_from(start), schedule.index_at(end) + 1))
        found += [(moment, place) for moment in moments if moment < end]
    return [(moment, schedules[place]) for moment, place in sorted(found)]


def play(
    model: Any,
    model_id: str,
    history: History,
    config: CrunchConfig,
    settings: Settings,
    schedules: Sequence[Schedule],
    span: tuple[datetime, datetime],
    progress: Progress,
) -> Play:
    """Tick the model with everything that becomes known in [start, end), and ask it in every slot.

    At a moment at which both happen the tick comes first: the input of a slot holds what is known at the slot.
    """
    start, end = span
    market = Market(history, config, settings)
    calls = ModelCalls(model, config.call_method)
    slots = slots_between(schedules, start, end)
    done = Play()
    if slots:
        _play(model_id, market, calls, Outcomes(config, settings, lambda: start), slots, start, done, progress)
    done.bars, done.model_seconds = market.bars, calls.seconds
    done.failed_ticks, done.tick_problem = calls.failed_ticks, calls.tick_problem
    return done


def _play(
    model_id: str,
    market: Market,
    calls: ModelCalls,
    outcomes: Outcomes,
    slots: Sequence[tuple[datetime, Schedule]],
    start: datetime,
    done: Play,
    progress: Progress,
) -> None:
    for document in market.move_to(start):
        calls.tick(document)
    market.bars = 0  # what was known before is no part of the run
    every = max(len(slots) // REPORTS, 1)
    for number, (slot_at, schedule) in enumerate(slots):
        for document in market.ticks_until(slot_at):
            calls.tick(document)
        if market.problem is not None:
            done.missed[market.problem] += 1
        else:
            done.predictions.append(_ask(model_id, market, calls, outcomes, slot_at, schedule, done))
        if number % every == 0:
            progress(number / len(slots))


def _ask(
    model_id: str,
    market: Market,
    calls: ModelCalls,
    outcomes: Outcomes,
    slot_at: datetime,
    schedule: Schedule,
    done: Play,
) -> Played:
    # Horizon 0 is judged by the input itself; the model must not be able to change it.
    given = market.raw_data() if schedule.horizon_seconds == 0 else None
    answer = calls.ask(schedule)
    done.late += answer.exec_time_ms > schedule.deadline_seconds * 1000
    columns = outcomes.of(answer)
    input_id = f"{slot_at.isoformat()}/{schedule.id}"
    record = PredictionRecord(
        id=f"{input_id}/{model_id}",
        input_id=input_id,
        model_id=model_id,
        prediction_config_id=schedule.id,
        scope_key=schedule.scope_key,
        scope=schedule.scope,
        status=_STATUSES[columns["status"]],
        exec_time_ms=columns["exec_time_ms"],
        inference_output=as_stored(columns["inference_output_jsonb"]),
        meta={},
        performed_at=slot_at,
        resolvable_at=schedule.resolvable_at(slot_at),
    )
    return Played(record, columns["failed_reason"], given)
