"""One model's scores of one cycle, summed up. Pure but for what the operator's aggregator does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, default_aggregate_snapshot
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.json_values import fault_in, finite_or_null, is_plain, reason_of, to_json
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.extensions.callable_resolver import configured_callable
from coordinator_node.metrics.values import as_number
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.snapshot.uncounted import Miss, UncountedScore

log = get_logger(__name__)

type Aggregator = Callable[[list[dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class ModelSummary:
    """A snapshot's content before it has metrics and an id.

    `prediction_count` counts successes. `summary` is what the aggregator made of them, {} where there are none or it
    failed. `meta` holds

    - `failed_count`, `absent_count`, and `missing_count`, which is both;
    - `due_count`, all that were due, and `coverage`, which is prediction_count / due_count;
    - `scopes`: {scope_key: {prediction_count, missing_count, value}}, the value being the aggregation's value_field
      over that scope alone, null where it has none;
    - `error`, where the aggregator failed.
    """

    model_id: str
    period_start: datetime
    period_end: datetime
    prediction_count: int
    summary: dict[str, Any]
    meta: dict[str, Any]


@dataclass
class _Counted:
    """What one model has in one cycle."""

    successes: list[UncountedScore] = field(default_factory=list)
    failures: list[UncountedScore | Miss] = field(default_factory=list)
    absences: list[Miss] = field(default_factory=list)

    @property
    def missing(self) -> list[UncountedScore | Miss]:
        return [*self.failures, *self.absences]


def aggregator_of(config: CrunchConfig, settings: Settings) -> Aggregator:
    """The config's aggregator, else that of MODEL_SCORE_AGGREGATOR, else the engine's means.

    Raises:
        ConfigurationError: MODEL_SCORE_AGGREGATOR cannot be imported.
    """
    if config.aggregate_snapshot is default_aggregate_snapshot:
        return configured_callable(settings, "model_score_aggregator") or config.aggregate_snapshot
    return config.aggregate_snapshot


def summarise(
    scores: Sequence[UncountedScore], misses: Sequence[Miss], aggregator: Aggregator, value_field: str
) -> list[ModelSummary]:
    """One summary a model, in order of model id.

    A model whose aggregator raises, or gives what is no JSON object, gets an empty summary with the reason in
    `meta.error`: its scores are counted, its windows go without this cycle, and no other model is held up.
    """
    by_model: dict[str, _Counted] = {}
    for score in scores:
        own = by_model.setdefault(score.model_id, _Counted())
        (own.successes if score.success else own.failures).append(score)
    for miss in misses:
        own = by_model.setdefault(miss.model_id, _Counted())
        (own.absences if miss.status is PredictionStatus.ABSENT else own.failures).append(miss)
    return [_summarise_one(model_id, by_model[model_id], aggregator, value_field) for model_id in sorted(by_model)]


def _summarise_one(model_id: str, counted: _Counted, aggregator: Aggregator, value_field: str) -> ModelSummary:
    successes, due = counted.successes, [*counted.successes, *counted.missing]
    meta: dict[str, Any] = {
        "failed_count": len(counted.failures),
        "absent_count": len(counted.absences),
        "missing_count": len(counted.missing),
        "due_count": len(due),
        "coverage": len(successes) / len(due),
    }
    summary: dict[str, Any] = {}
    try:
        summary = _aggregate(successes, aggregator)
        meta["scopes"] = _by_scope(counted, summary, aggregator, value_field)
    except RAISED_BY_CALLABLES as error:  # whatever it raised, it costs this model's summary only
        summary, meta["error"] = {}, f"the snapshot aggregator failed: {reason_of(error)}"
        log.warning("snapshot without a summary", model_id=model_id, reason=meta["error"])
    return ModelSummary(
        model_id=model_id,
        period_start=min(one.performed_at for one in due),
        period_end=max(one.resolvable_at for one in due),
        prediction_count=len(successes),
        summary=summary,
        meta=meta,
    )


def _by_scope(
    counted: _Counted, whole: Mapping[str, Any], aggregator: Aggregator, value_field: str
) -> dict[str, dict[str, Any]]:
    by_scope: dict[str, list[UncountedScore]] = {}
    for score in counted.successes:
        by_scope.setdefault(score.scope_key, []).append(score)
    missing = Counter(miss.scope_key for miss in counted.missing)
    scopes: dict[str, dict[str, Any]] = {}
    for scope_key in sorted({*by_scope, *missing}):
        own = by_scope.get(scope_key, [])
        summary = whole if len(by_scope) == 1 and own else _aggregate(own, aggregator)
        scopes[scope_key] = {
            "prediction_count": len(own),
            "missing_count": missing[scope_key],
            "value": as_number(summary.get(value_field)),
        }
    return scopes


def _aggregate(scores: Sequence[UncountedScore], aggregator: Aggregator) -> dict[str, Any]:
    """The aggregator's summary of some scores, storable, null where it holds NaN or infinity; {} for no scores."""
    return aggregated([dict(score.observation.result) for score in scores], aggregator) if scores else {}


def aggregated(results: list[dict[str, Any]], aggregator: Aggregator) -> dict[str, Any]:
    """What an aggregator makes of some results, storable, null where it holds NaN or infinity.

    Raises:
        TypeError, ValueError: it gave what is no JSON object.
        Exception: whatever it raises.
    """
    given = aggregator(results)
    if is_plain(given):
        return dict(given)
    if not isinstance(given, Mapping | BaseModel):
        raise TypeError(f"it returned a {type(given).__name__}, not a dict")
    summary: dict[str, Any] = finite_or_null(to_json(given))
    fault = fault_in(summary, "summary")
    if fault:
        raise ValueError(fault)
    return summary
