"""Ground truths of a made-up market: what the resolver and `ground_truth_type` make of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, ScheduledPrediction, default_resolve_ground_truth
from coordinator_node.entities.error_places import place_of
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus
from coordinator_node.entities.times import utc_now
from coordinator_node.extensions.callable_resolver import call_fault
from coordinator_node.services.checks.findings import Finding, failed, fine, warning
from coordinator_node.services.checks.market import made_up_records
from coordinator_node.services.checks.recorder import Recorder
from coordinator_node.services.checks.samples import samples_of
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.ground_truth import Outcome, TruthResolver
from coordinator_node.services.predict.raw_input import InputBuilderError, SubjectInputs
from coordinator_node.services.predict.schedules import complete_scope
from coordinator_node.services.tournament.errors import RoundInputError
from coordinator_node.services.tournament.truths import truths_by_index
from coordinator_node.services.tournament_predict import is_tournament

CHECK = "ground truth"
MOVES = (0.2, -0.2, 0.001, -0.001)
"""By how much the price changes in each window, large and small in both directions."""

MOST_SCHEDULES = 20
KNOWN_SOURCES = ("simulated", "replay", "pyth", "binance")
"""Of these it is known what a record's values are."""


@dataclass(frozen=True)
class Truth:
    """One outcome: which schedule it is of (`where`, its scope_key), its scope, and the values."""

    where: str
    scope: dict[str, Any]
    values: dict[str, Any]


@dataclass(frozen=True)
class Truths:
    """The outcomes there are, and what was found while resolving them."""

    known: list[Truth]
    findings: list[Finding]


def made_truths(config: CrunchConfig, settings: Settings) -> Truths:
    """Outcomes of every active schedule; of a round, where the config is for tournaments."""
    if is_tournament(config):
        return _of_a_round(config)
    resolve = config.resolve_ground_truth
    fault = call_fault(resolve, "feed_records", "prediction")
    if fault and call_fault(resolve, "feed_records"):
        return Truths([], failed(CHECK, f"resolve_ground_truth {fault}"))
    recorder = Recorder(resolve)
    resolver = TruthResolver(config.model_copy(update={"resolve_ground_truth": recorder}), settings)
    known: list[Truth] = []
    findings: dict[str, Finding] = {}
    for schedule in [each for each in config.scheduled_predictions if each.active][:MOST_SCHEDULES]:
        scope = complete_scope(config, schedule.scope, schedule)
        for move in MOVES:
            outcome = _outcome(resolver, schedule, scope, config, settings, move)
            if outcome.truth is not None:
                known.append(Truth(schedule.scope_key, scope, outcome.truth))
            elif schedule.resolve_horizon_seconds:
                found = _fault(schedule, outcome, recorder, config, settings)
                findings.setdefault(found.message, found)
    return Truths(known, list(findings.values()) or _resolved(known))


def _outcome(
    resolver: TruthResolver,
    schedule: ScheduledPrediction,
    scope: dict[str, Any],
    config: CrunchConfig,
    settings: Settings,
    move: float,
) -> Outcome:
    feed = FeedScope.from_settings(settings)
    subject = str(scope.get("subject") or settings.feed_subjects[0])
    horizon = timedelta(seconds=schedule.resolve_horizon_seconds)
    end = utc_now().replace(microsecond=0)
    if not horizon:
        return Outcome(_input(config, settings, feed, end, move))
    prediction = PredictionRecord(
        id="made-up-prediction",
        input_id="made-up-input",
        model_id="made-up-model",
        prediction_config_id=None,
        scope_key=schedule.scope_key,
        scope=scope,
        status=PredictionStatus.PENDING,
        exec_time_ms=1.0,
        performed_at=end - horizon,
        resolvable_at=end,
    )
    return resolver.outcome(made_up_records(feed, subject, end - horizon, end, move), prediction)


def _input(
    config: CrunchConfig, settings: Settings, feed: FeedScope, end: datetime, move: float
) -> dict[str, Any] | None:
    """What stands in `inputs.raw_data_jsonb`, which is the truth where the horizon is 0; None if it cannot be built."""
    try:
        built = made_inputs(config, settings, feed, end, move)
    except InputBuilderError:
        return None  # what the check of the input is about
    return {"subjects": built} if len(settings.feed_subjects) > 1 else built[settings.feed_subjects[0]]


def made_inputs(
    config: CrunchConfig, settings: Settings, feed: FeedScope, end: datetime, move: float
) -> dict[str, dict[str, Any]]:
    """What models receive of each subject after so many records as the settings say, at most some hundred.

    Raises:
        InputBuilderError: the operator's builder or `input_type` refuses it.
        ConfigurationError: INFERENCE_INPUT_BUILDER cannot be imported.
    """
    inputs = SubjectInputs(config, settings)
    start = end - timedelta(seconds=feed.spacing * max(settings.feed_candles_window - 1, 1))
    built: dict[str, dict[str, Any]] = {}
    for subject in settings.feed_subjects:
        records = made_up_records(feed, subject, start, end, move)
        built[subject] = inputs.built(subject, [(record.ts_event, record.values) for record in records])
    return built


def _fault(
    schedule: ScheduledPrediction, outcome: Outcome, recorder: Recorder, config: CrunchConfig, settings: Settings
) -> Finding:
    where = f"schedule {schedule.scope_key}: "
    if outcome.problem is not None:
        place = None if recorder.error is None else place_of(recorder.error)
        message = f"{where}resolve_ground_truth: {outcome.problem}{f' ({place})' if place else ''}"
        level = failed if settings.feed_source in KNOWN_SOURCES else warning
        return level(CHECK, message, "correct it, or ground_truth_type: no prediction would ever be scored")[0]
    if config.resolve_ground_truth is default_resolve_ground_truth:
        message = f"{where}the default resolve_ground_truth needs a price, and {settings.feed_kind} records have none"
        return failed(CHECK, message, "set resolve_ground_truth in the config, or another FEED_KIND")[0]
    message = f"{where}resolve_ground_truth gives None (not known yet) for a window that is complete"
    return warning(CHECK, message, "where it does so live too, predictions wait until they are given up")[0]


def _resolved(known: list[Truth]) -> list[Finding]:
    if not known:
        return warning(CHECK, "no schedule is active, so that there is nothing to resolve")
    return fine(CHECK, f"it holds {', '.join(sorted(known[0].values))}")


def _of_a_round(config: CrunchConfig) -> Truths:
    name = config.ground_truth_type.__name__
    if not config.ground_truth_type.model_fields:
        message = f"{name} declares no field, so that it is not known what scoring is given"
        return Truths([], warning(CHECK, message, "declare the fields of a round's truth in ground_truth_type"))
    known: list[Truth] = []
    for sample in samples_of(config.ground_truth_type):
        try:
            truth = truths_by_index([sample], 1, config.ground_truth_type)[0]
        except RoundInputError:
            continue
        known.append(Truth("round", config.scope.model_dump(mode="json"), truth))
    if known:
        return Truths(known, fine(CHECK, f"a round's truth holds {', '.join(sorted(known[0].values))}"))
    return Truths([], warning(CHECK, f"no valid truth of {name} could be made up, so that nothing was scored"))
