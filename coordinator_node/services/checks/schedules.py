"""The schedules against the feed, and what models receive of it."""

from __future__ import annotations

from coordinator_node.crunch_config import default_resolve_ground_truth
from coordinator_node.entities.error_places import reason_and_place_of
from coordinator_node.entities.times import utc_now
from coordinator_node.extensions.callable_resolver import call_fault
from coordinator_node.services.checks.competition import Competition
from coordinator_node.services.checks.findings import Finding, failed, fine, warning
from coordinator_node.services.checks.truths import MOVES, made_inputs
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.predict.raw_input import InputBuilderError, input_builder
from coordinator_node.services.predict.schedules import complete_scope, schedule_faults
from coordinator_node.services.tournament_predict import is_tournament

SCHEDULES, INPUT = "schedules", "input"


def check_schedules(competition: Competition) -> list[Finding]:
    """Every active schedule can be called, and its outcome known; in a tournament, models receive what they need."""
    config, settings = competition.config, competition.settings
    if is_tournament(config):
        return _tournament(competition)
    faults = list(schedule_faults(config, settings, FeedScope.from_settings(settings).spacing))
    found = [finding for fault in faults for finding in failed(SCHEDULES, fault)]
    active = [schedule for schedule in config.scheduled_predictions if schedule.active]
    if config.resolve_ground_truth is not default_resolve_ground_truth:
        for schedule in active:
            subject = complete_scope(config, schedule.scope, schedule).get("subject")
            if schedule.resolve_horizon_seconds and subject not in settings.feed_subjects:
                message = f"schedule {schedule.scope_key}: its subject {subject!r} is not among FEED_SUBJECTS"
                found += warning(SCHEDULES, message, "resolve_ground_truth is then given no records")
    if not active:
        found += warning(SCHEDULES, "no schedule is active: no model is ever asked", "set scheduled_predictions")
    return found or fine(SCHEDULES, f"{len(active)} active: {', '.join(schedule.scope_key for schedule in active)}")


def _tournament(competition: Competition) -> list[Finding]:
    found: list[Finding] = []
    if not any(arg.name == "features" for arg in competition.config.call_method.args):
        found += warning(
            SCHEDULES,
            "models of a round receive only those fields of a feature row that call_method's arguments name;"
            " an argument named features, of type JSON, hands them the whole row",
        )
    return found or fine(SCHEDULES, "rounds are asked by request")


def check_input(competition: Competition) -> list[Finding]:
    """The operator's builder and `input_type` take what the feed gives."""
    config, settings = competition.config, competition.settings
    builder = input_builder(settings)
    fault = None if builder is None else call_fault(builder, "raw_input")
    if fault:
        return failed(INPUT, f"INFERENCE_INPUT_BUILDER: {fault}")
    try:
        built = made_inputs(config, settings, FeedScope.from_settings(settings), utc_now(), MOVES[0])
    except InputBuilderError as error:
        cause = error.__cause__ or error
        message = f"what the feed gives is refused on its way to the models: {reason_and_place_of(cause)}"
        return failed(INPUT, message, "correct INFERENCE_INPUT_BUILDER or input_type: no model would receive anything")
    return fine(INPUT, f"models receive {', '.join(next(iter(built.values())))}")
