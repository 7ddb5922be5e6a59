"""Keeps the schedules of the database in step with those of the config."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import ValidationError
from sqlmodel import Session, select

from coordinator_node.crunch_config import ScheduledPrediction
from coordinator_node.db.advisory import AdvisoryLock, take
from coordinator_node.db.repositories.values import storable
from coordinator_node.db.tables import ScheduledPredictionConfigRow
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.schemas import ScheduleEnvelope

ScheduleKey = tuple[str, int, int]


def sync_schedules(session: Session, schedules: list[ScheduledPrediction], now: datetime) -> None:
    """Make the rows of scheduled_prediction_configs say what the config says. Does not commit.

    A schedule is known by its scope_key, interval and horizon. A row with the same three is used again, whoever made
    it; another order, scope or meta changes that row. A schedule that the config no longer holds becomes inactive, and
    its row stays, because predictions name it. `activated_at` becomes `now` when a schedule starts to run under this
    version, and keeps its value while it runs.

    Several may do this at once: each waits until the one before has committed, and then finds nothing to do.

    Raises:
        ConfigurationError: a scope or meta holds what the database cannot; the message names the schedule.
    """
    take(session.connection(), AdvisoryLock.SCHEDULES)
    query = select(ScheduledPredictionConfigRow).execution_options(populate_existing=True)
    rows = {row.id: row for row in session.exec(query)}
    by_key = _best_by_key(rows.values())
    used: set[str] = set()
    for schedule in schedules:
        key = (schedule.scope_key, schedule.prediction_interval_seconds, schedule.resolve_horizon_seconds)
        row = by_key.get(key)
        if row is None:
            row = ScheduledPredictionConfigRow(id=_free_id(key, rows), scope_key=schedule.scope_key, active=False)
            rows[row.id] = by_key[key] = row
            session.add(row)
        _apply(row, schedule, now)
        used.add(row.id)
    for row in rows.values():
        if row.id not in used:
            row.active = False
    session.flush()


def _apply(row: ScheduledPredictionConfigRow, schedule: ScheduledPrediction, now: datetime) -> None:
    name = f"schedule {schedule.scope_key!r}"
    envelope = ScheduleEnvelope(
        prediction_interval_seconds=schedule.prediction_interval_seconds,
        resolve_horizon_seconds=schedule.resolve_horizon_seconds,
    )
    if schedule.active and (row.activated_at is None or not row.active):
        row.activated_at = now
    row.active = schedule.active
    row.order = schedule.order
    row.schedule_jsonb = envelope.model_dump()
    try:
        row.scope_template_jsonb = storable(name, "scope", schedule.scope)
        row.meta_jsonb = storable(name, "meta", schedule.meta)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _best_by_key(rows: Iterable[ScheduledPredictionConfigRow]) -> dict[ScheduleKey, ScheduledPredictionConfigRow]:
    """One row for each key: of several, one that runs, then one that ran under this version, then the first."""
    ordered = sorted(rows, key=lambda row: (not row.active, row.activated_at is None, row.order, row.id))
    best: dict[ScheduleKey, ScheduledPredictionConfigRow] = {}
    for row in ordered:
        key = _key_of(row)
        if key is not None:
            best.setdefault(key, row)
    return best


def _key_of(row: ScheduledPredictionConfigRow) -> ScheduleKey | None:
    """The row's key; None for a row whose schedule says nothing that this version can run."""
    try:
        schedule = ScheduleEnvelope.model_validate(row.schedule_jsonb or {})
    except ValidationError:
        return None
    return row.scope_key, schedule.prediction_interval_seconds, schedule.resolve_horizon_seconds


def schedule_name(key: ScheduleKey) -> str:
    """The id of a new schedule's row, where no other has it."""
    return f"{key[0]}-every-{key[1]}s-horizon-{key[2]}s"


def _free_id(key: ScheduleKey, taken: Iterable[str]) -> str:
    """The id that the key gives, with a number behind it where a row of another key has that id."""
    base = schedule_name(key)
    candidate, number = base, 2
    while candidate in taken:
        candidate, number = f"{base}-{number}", number + 1
    return candidate
