"""The writer of predictions, where its worker lost a shard and took it again, as when the database was away."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import builders
from builders import settings_of
from predict_cases import rows
from sqlalchemy import Engine

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.db.schedules import sync_schedules
from coordinator_node.entities.times import utc_now
from coordinator_node.runtime.leases import LeaseGroup
from coordinator_node.services.predict.ensemble_signals import EnsembleSignals
from coordinator_node.services.predict.lanes import Answer
from coordinator_node.services.predict.outcomes import Outcomes
from coordinator_node.services.predict.schedules import active_schedules
from coordinator_node.services.predict.slots import ShardCall, SlotCall, claim_calls, end_left_calls, open_slot
from coordinator_node.services.predict.writer import PredictionWriter

MODELS = ("first", "second")
SHARD = "predict/one"
CONFIG = CrunchConfig()
OUTCOMES = Outcomes(CONFIG, settings_of(), utc_now)


class NoSignals(EnsembleSignals):
    """There are no ensembles."""

    def __init__(self) -> None:
        self._names = {}


def opened(engine: Engine, age: timedelta) -> None:
    """A called slot of that age, with a call for both models that nobody has claimed."""
    with transaction(engine) as session:
        [(schedule, _)] = active_schedules(session, CONFIG, settings_of())
        calls = {SHARD: list(MODELS)}
        open_slot(session, schedule, utc_now() - age, raw_data={}, models_of_shards=calls, now=utc_now())


def claimed(engine: Engine, epoch: int) -> list[SlotCall]:
    with transaction(engine) as session:
        schedules = {schedule.id: schedule for schedule, _ in active_schedules(session, CONFIG, settings_of())}
        return claim_calls(session, {SHARD: epoch}, schedules, utc_now())


async def test_what_was_answered_under_the_present_lease_is_stored_beside_what_is_late(engine: Engine) -> None:
    with transaction(engine) as session:
        sync_schedules(session, CONFIG.scheduled_predictions, utc_now())
        for model_id in MODELS:
            builders.model(session, model_id)
    group = LeaseGroup(engine, (SHARD,), "worker")
    calls: list[SlotCall] = []
    for age in (timedelta(seconds=1), timedelta(0)):
        group.release()
        assert group.take(SHARD)
        opened(engine, age)
        calls += claimed(engine, group.epochs[SHARD])
    lost, kept = calls

    done: list[ShardCall] = []
    writer = PredictionWriter(engine, utc_now, lambda _, calls: done.extend(calls), NoSignals())
    answered = OUTCOMES.of(Answer(value=0.5))
    # One batch: the rest of the lost call, and the beginning of the present one.
    for call in (lost, kept):
        writer.put(call, call.prediction("first", answered))
    writer.put(lost, lost.prediction("second", answered))
    writer.close(lost)
    writing = asyncio.create_task(writer.run())
    await writer.flushed()
    writer.put(kept, kept.prediction("second", answered))
    writer.close(kept)
    await writer.flushed()
    writing.cancel()
    assert {call.key for call in done} == {lost.key, kept.key}

    # What the next pass does: the lost call's models get the rows that say so.
    with transaction(engine) as session:
        end_left_calls(session, [SHARD], [], utc_now())
    stored = rows(engine, "SELECT slot_id, model_id, status FROM predictions")
    assert sorted(map(tuple, stored)) == sorted(
        (call.slot_id, model_id, status)
        for call, status in ((lost, "FAILED"), (kept, "PENDING"))
        for model_id in MODELS
    )
    assert not rows(engine, "SELECT 1 FROM slot_calls WHERE closed_at IS NULL")
