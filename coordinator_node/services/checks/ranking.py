"""From scores to money: aggregation and ranking, metrics, ensembles, emission."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from coordinator_node.crunch_config import CrunchConfig, EnsembleConfig, default_compute_metrics
from coordinator_node.entities.error_places import reason_and_place_of
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.times import utc_now
from coordinator_node.extensions.callable_resolver import call_fault, configured_callable
from coordinator_node.metrics import MetricsContext, get_default_registry
from coordinator_node.metrics.values import as_number, return_of
from coordinator_node.services.checkpoint import checked_emission
from coordinator_node.services.checks.competition import Competition
from coordinator_node.services.checks.dry_run import Scored
from coordinator_node.services.checks.findings import Finding, did_you_mean, failed, fine, warning
from coordinator_node.services.ensemble import apply_model_filter, inverse_variance, normalised_weights
from coordinator_node.services.ranking import Ranking, RankingError, Standing
from coordinator_node.services.snapshot.ensemble_weights import enabled_ensembles
from coordinator_node.services.snapshot.summary import aggregated, aggregator_of
from coordinator_node.services.tournament_predict import is_tournament
from coordinator_node.services.window_sums import hours_before

AGGREGATION, METRICS, ENSEMBLES, EMISSION = "aggregation", "metrics", "ensembles", "emission"
MODELS = ("model-1", "model-2", "model-3")
OBSERVATIONS = 24
RANKINGS = (1, 2, 3, 12)
"""So many models are ranked in the emissions that are tried."""

type Rows = dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]
"""By model: predictions and scores, aligned, in the shapes that metrics are given."""


def check_aggregation(competition: Competition) -> list[Finding]:
    """The aggregator gives what the windows take the mean of, and the ranking has its key and its order."""
    config, settings = competition.config, competition.settings
    ranking = Ranking(config, settings)
    aggregator = aggregator_of(config, settings)
    ranker = configured_callable(settings, "leaderboard_ranker")
    named = (("the snapshot aggregator", aggregator, ("score_results",)),)
    for name, function, arguments in named if ranker is None else (*named, _ranker(ranker)):
        fault = call_fault(function, *arguments)
        if fault:
            return failed(AGGREGATION, f"{name}: {fault}")
    scored = competition.dry_run.scored
    if not scored:
        return warning(AGGREGATION, "not tried, because there are no scores; see above")
    try:
        summary = aggregated([dict(each.result) for each in scored], aggregator)
        ranking.ranked([_standing(config, model_id, summary, place) for place, model_id in enumerate(MODELS)])
    except RankingError as error:
        return failed(AGGREGATION, reason_and_place_of(error))
    except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything
        return failed(AGGREGATION, f"the snapshot aggregator failed: {reason_and_place_of(error)}")
    return _key_faults(config, summary) or fine(AGGREGATION, f"ranked by {config.aggregation.ranking_key}")


def _ranker(ranker: Any) -> tuple[str, Any, tuple[str, ...]]:
    return "LEADERBOARD_RANKER", ranker, ("entries", "aggregation")


def _key_faults(config: CrunchConfig, summary: dict[str, Any]) -> list[Finding]:
    aggregation = config.aggregation
    key, field = aggregation.ranking_key, aggregation.value_field
    holds = f"summaries hold {', '.join(sorted(summary)) or 'nothing'}"
    if aggregation.windows and as_number(summary.get(field)) is None:
        message = f"aggregation.value_field {field!r} is no number of a summary: {holds}"
        return failed(AGGREGATION, message, did_you_mean(field, summary) or "every window would stay empty")
    if key not in (*aggregation.windows, *config.metrics) and as_number(summary.get(key)) is None:
        message = f"aggregation.ranking_key {key!r} is no number of a summary: {holds}"
        return failed(AGGREGATION, message, did_you_mean(key, summary) or "nobody would be ranked")
    return []


def _standing(config: CrunchConfig, model_id: str, summary: dict[str, Any], place: int) -> Standing:
    value = 1.0 / (place + 1)
    aggregation = config.aggregation
    return Standing(
        model_id=model_id,
        model_name=model_id,
        cruncher_name=f"player-{place + 1}",
        cruncher_id=f"player-{place + 1}",
        first_scored_at=utc_now(),
        windows=dict.fromkeys(aggregation.windows, value),
        summary={**summary, **dict.fromkeys(config.metrics, value)},
        key=aggregation.ranking_key,
        direction=aggregation.ranking_direction,
        value=value,
        prediction_count=max(OBSERVATIONS, aggregation.min_predictions),
    )


def check_metrics(competition: Competition) -> list[Finding]:
    """Every named metric exists, and those of the operator's own can be computed."""
    config = competition.config
    rows = _rows(competition.dry_run.scored)
    if config.compute_metrics is not default_compute_metrics:
        return _computed_by_operator(config, rows)
    registry = get_default_registry()
    found: list[Finding] = []
    for name in config.metrics:
        function = registry.get(name)
        if function is None:
            remedy = did_you_mean(name, registry.available()) or "register it: get_default_registry().register(name, f)"
            found += failed(METRICS, f"there is no metric {name!r}", remedy)
        elif not registry.is_table_measure(name):
            found += _own_metric(name, function, config, rows)
    return found or fine(METRICS, ", ".join(config.metrics) or "none")


def _own_metric(name: str, function: Any, config: CrunchConfig, rows: Rows) -> list[Finding]:
    fault = call_fault(function, "predictions", "scores", "context")
    if fault:
        return failed(METRICS, f"metric {name!r}: {fault}")
    for model_id, (predictions, scores) in rows.items():
        try:
            value = function(predictions, scores, _context(config, model_id, rows))
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything
            return failed(METRICS, f"metric {name!r} raised {reason_and_place_of(error)}", "it would always be null")
        if value is not None and as_number(value) is None:
            return failed(METRICS, f"metric {name!r} gave {value!r}", "give a finite number, or None where undefined")
    return []


def _computed_by_operator(config: CrunchConfig, rows: Rows) -> list[Finding]:
    fault = call_fault(config.compute_metrics, "metrics", "predictions", "scores", "context")
    if fault:
        return failed(METRICS, f"compute_metrics {fault}")
    for model_id, (predictions, scores) in rows.items():
        try:
            dict(config.compute_metrics(list(config.metrics), predictions, scores, _context(config, model_id, rows)))
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything
            return failed(METRICS, f"compute_metrics failed: {reason_and_place_of(error)}", "metrics would be null")
    return fine(METRICS, "computed by compute_metrics")


def _context(config: CrunchConfig, model_id: str, rows: Rows) -> MetricsContext:
    """As a score cycle gives it: its window ends now, and holds all that the models said."""
    until = utc_now()
    return MetricsContext(
        model_id=model_id,
        window_start=hours_before(until, config.metrics_window_hours),
        window_end=until,
        all_model_predictions={other: own for other, (own, _) in rows.items()},
    )


def _rows(scored: list[Scored]) -> Rows:
    """Three models' made-up observations, of the cases that were scored; {} where none was."""
    rows: Rows = {}
    start = utc_now() - timedelta(hours=1)
    for number, model_id in enumerate(MODELS if scored else ()):
        predictions, scores = [], []
        for entry in range(OBSERVATIONS):
            # Steps that share no factor with most lengths, so that models answer differently.
            case = scored[(entry * (7 + 4 * number) + number) % len(scored)]
            key = {"input_id": f"input-{entry}", "scope_key": case.truth.where}
            at = start + timedelta(minutes=entry)
            returned = return_of(case.result, case.truth.values)
            predictions.append(
                {
                    **key,
                    "inference_output": case.output,
                    "performed_at": at,
                    "scope": case.truth.scope,
                    "actual_return": returned,
                }
            )
            scored_at = at + timedelta(seconds=1)
            scores.append({**key, "result": case.result, "scored_at": scored_at, "ground_truth": case.truth.values})
        rows[model_id] = (predictions, scores)
    return rows


def check_ensembles(competition: Competition) -> list[Finding]:
    """Every enabled ensemble's filter and strategy can be called, and give some model a weight."""
    ensembles = enabled_ensembles(competition.config)
    if not ensembles:
        return fine(ENSEMBLES, "none")
    names = ", ".join(ensemble.name for ensemble in ensembles)
    if is_tournament(competition.config):
        message = f"rounds have no ensembles: the weights of {names} are computed, and no prediction made"
        return warning(ENSEMBLES, message)
    rows = _rows(competition.dry_run.scored)
    found = [each for ensemble in ensembles for each in _ensemble(ensemble, competition.config, rows)]
    return found or fine(ENSEMBLES, names)


def _ensemble(ensemble: EnsembleConfig, config: CrunchConfig, rows: Rows) -> list[Finding]:
    strategy, model_filter = ensemble.strategy or inverse_variance, ensemble.model_filter
    fault = call_fault(strategy, "model_metrics", "predictions")
    if fault:
        return failed(ENSEMBLES, f"{ensemble.name}: its strategy {fault}")
    fault = None if model_filter is None else call_fault(model_filter, "model_id", "metrics")
    if fault:
        return failed(ENSEMBLES, f"{ensemble.name}: its model_filter {fault}")
    names = [*config.aggregation.windows, *config.metrics, config.aggregation.value_field]
    metrics = {model_id: dict.fromkeys(names, 0.5 / (place + 1)) for place, model_id in enumerate(rows)}
    predictions = {model_id: own for model_id, (own, _) in rows.items()}
    aggregation = config.aggregation
    try:
        kept = apply_model_filter(
            model_filter, metrics, predictions, aggregation.ranking_key, aggregation.ranking_direction
        )
        given = strategy({model_id: metrics[model_id] for model_id in kept}, kept)
        weights = normalised_weights(dict(given))
    except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything
        return failed(ENSEMBLES, f"{ensemble.name}: {reason_and_place_of(error)}", "it would never have weights")
    if kept and not weights:
        return warning(ENSEMBLES, f"{ensemble.name}: its strategy gives no model a weight above 0, but {given!r}")
    return []


def check_emission(competition: Competition) -> list[Finding]:
    """Rankings of several lengths are paid in shares that sum to exactly 100 %."""
    config, settings = competition.config, competition.settings
    arguments = ("ranked_entries", "crunch_pubkey", "compute_provider", "data_provider")
    fault = call_fault(config.build_emission, *arguments)
    if fault:
        return failed(EMISSION, f"build_emission {fault}")
    summary = dict(competition.dry_run.scored[0].result) if competition.dry_run.scored else {"value": 1.0}
    for count in RANKINGS:
        try:
            checked_emission(config, settings, [_entry(config, summary, place) for place in range(count)])
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything
            message = f"build_emission fails for {count} ranked models: {reason_and_place_of(error)}"
            return failed(EMISSION, message, "no checkpoint would be made")
    return fine(EMISSION, f"rankings of {', '.join(map(str, RANKINGS))} models are paid in full")


def _entry(config: CrunchConfig, summary: dict[str, Any], place: int) -> dict[str, Any]:
    value = 1.0 / (place + 1)
    model_id = f"model-{place + 1}"
    numbers = dict.fromkeys([*config.metrics, *config.aggregation.windows], value)
    return {
        "model_id": model_id,
        "model_name": model_id,
        "cruncher_id": f"player-{place + 1}",
        "cruncher_name": f"player-{place + 1}",
        "rank": place + 1,
        "prediction_count": OBSERVATIONS,
        "snapshot_count": 1,
        "result_summary": {**summary, **numbers},
    }
