"""The active schedules of the database, checked against the config and the feed before any model is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, ScheduledPrediction, default_resolve_ground_truth
from coordinator_node.db.tables import ScheduledPredictionConfigRow
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.schemas.payload_contracts import ScheduleEnvelope
from coordinator_node.services.predict.grid import Schedule, deadline_seconds
from coordinator_node.services.predict.model_nodes import make_call


def check_schedules(config: CrunchConfig, settings: Settings, spacing_seconds: float) -> None:
    """Refuse what could never be scored or called.

    Raises:
        ConfigurationError: the first of `schedule_faults`.
    """
    fault = next(schedule_faults(config, settings, spacing_seconds), None)
    if fault:
        raise ConfigurationError(fault)


def schedule_faults(config: CrunchConfig, settings: Settings, spacing_seconds: float) -> Iterator[str]:
    """What keeps active schedules from being called or scored, a sentence each; none where all is well.

    A horizon shorter than the feed's spacing (with both numbers), an argument of `call_method` that a schedule's scope
    does not hold or that is of another type, a subject that the feed does not bring, a deadline that is no number.
    """
    for schedule in config.scheduled_predictions:
        if schedule.active:
            scope = complete_scope(config, schedule.scope, schedule)
            found = (
                _horizon_fault(schedule, spacing_seconds),
                _argument_fault(config, scope),
                _subject_fault(schedule, scope, config, settings),
            )
            yield from (f"schedule {schedule.scope_key}: {fault}" for fault in found if fault)
            try:
                own_deadline(schedule.meta, schedule.scope_key)
            except ConfigurationError as error:
                yield str(error)


def _horizon_fault(schedule: ScheduledPrediction, spacing_seconds: float) -> str | None:
    horizon = schedule.resolve_horizon_seconds
    if not 0 < horizon < spacing_seconds:
        return None
    return (
        f"its horizon of {horizon} s is shorter than the feed's spacing of {spacing_seconds:g} s, so that no outcome"
        " could be known; lengthen one or refine the other"
    )


def _argument_fault(config: CrunchConfig, scope: dict[str, Any]) -> str | None:
    method = config.call_method
    missing = [arg.name for arg in method.args if arg.name not in scope]
    if missing:
        return f"call_method {method.method} needs {', '.join(missing)}, which its scope does not hold"
    try:
        make_call(method.method, [(arg.type, scope[arg.name]) for arg in method.args])
    except (TypeError, ValueError, OverflowError) as error:
        return f"its scope does not fit {method.method}: {error}"
    return None


def _subject_fault(
    schedule: ScheduledPrediction, scope: dict[str, Any], config: CrunchConfig, settings: Settings
) -> str | None:
    by_feed = config.resolve_ground_truth is default_resolve_ground_truth and schedule.resolve_horizon_seconds > 0
    if not by_feed or scope.get("subject") in settings.feed_subjects:
        return None
    return (
        f"its subject {scope.get('subject')!r} is not among FEED_SUBJECTS ({', '.join(settings.feed_subjects)}), so"
        " that no outcome could be known"
    )


def complete_scope(
    config: CrunchConfig, own: dict[str, Any], schedule: ScheduledPrediction | ScheduleEnvelope
) -> dict[str, Any]:
    """What is predicted: the config's defaults, overridden by the schedule's own fields, with its horizon."""
    return {
        **config.scope.model_dump(mode="json"),
        "resolve_horizon_seconds": schedule.resolve_horizon_seconds,
        **own,
    }


def own_deadline(meta: dict[str, Any], scope_key: str) -> float | None:
    """`meta.deadline_seconds` of a schedule, in seconds; None where it has none."""
    return _number(meta, "deadline_seconds", scope_key, minimum=0.001)


def active_schedules(session: Session, config: CrunchConfig, settings: Settings) -> list[tuple[Schedule, datetime]]:
    """The active schedules in the operator's order, each with the time at which its grid begins."""
    row = ScheduledPredictionConfigRow
    rows = session.exec(select(row).where(col(row.active)).order_by(col(row.order), col(row.id))).all()
    return [(_schedule(r, config, settings), r.activated_at) for r in rows if r.activated_at is not None]


def _schedule(row: ScheduledPredictionConfigRow, config: CrunchConfig, settings: Settings) -> Schedule:
    envelope = ScheduleEnvelope.model_validate(row.schedule_jsonb or {})
    scope = complete_scope(config, row.scope_template_jsonb or {}, envelope)
    return make_schedule(row.id, row.scope_key, scope, envelope, row.meta_jsonb or {}, settings)


def make_schedule(
    schedule_id: str,
    scope_key: str,
    scope: dict[str, Any],
    envelope: ScheduleEnvelope,
    meta: dict[str, Any],
    settings: Settings,
) -> Schedule:
    """A schedule with its grid and its deadline; live and in backtests. `scope` is complete.

    Raises:
        ConfigurationError: `meta` holds an offset or a deadline that is no usable number.
    """
    timeout = settings.model_runner_timeout_seconds
    return Schedule(
        id=schedule_id,
        scope_key=scope_key,
        scope=scope,
        interval_seconds=envelope.prediction_interval_seconds,
        horizon_seconds=envelope.resolve_horizon_seconds,
        offset_seconds=_number(meta, "offset_seconds", scope_key, minimum=None) or 0.0,
        deadline_seconds=deadline_seconds(envelope.resolve_horizon_seconds, timeout, own_deadline(meta, scope_key)),
    )


def _number(meta: dict[str, Any], name: str, scope_key: str, minimum: float | None) -> float | None:
    value = meta.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or (minimum is not None and value < minimum):
        raise ConfigurationError(f"schedule {scope_key}: meta.{name} is {value!r}, which is not a usable number")
    return float(value)
