"""Ensembles: which models, with what weights, and the average of their predictions. Pure: nothing here does I/O.

`predictions` maps a model id to its prediction dicts (their shape is in `coordinator_node.metrics.observations`),
`model_metrics` a model id to its numbers. Ensembles among them are never members of another ensemble.
"""

from __future__ import annotations

import json
import math
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from coordinator_node.entities.ensemble import (
    ENSEMBLE_PREFIX,
    ENSEMBLE_SUFFIX,
    ensemble_model_id,
    is_ensemble_model,
)
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus
from coordinator_node.entities.times import utc_now
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.observations import EntryKey, entry_key
from coordinator_node.metrics.values import as_number, signal_of

__all__ = [
    "ENSEMBLE_PREFIX",
    "ENSEMBLE_SUFFIX",
    "MAX_PRECISION_RATIO",
    "TopN",
    "apply_model_filter",
    "build_ensemble_predictions",
    "ensemble_model_id",
    "equal_weight",
    "inverse_error_variance",
    "inverse_variance",
    "is_ensemble_model",
    "min_metric",
    "normalised_weights",
    "sample_variance",
    "top_n",
    "weights_by_variance",
]

MAX_PRECISION_RATIO = 10.0
"""How many times the weight of a model of typical variance `inverse_variance` gives at most."""

MIN_FOR_VARIANCE = 2
"""Fewest signals that a variance is taken of."""

_PREDICTION_IDS = uuid.UUID("5b0f6a0e-6c0c-5d5e-9a55-0d4d3c2f7a11")
"""Namespace (RFC 9562, version 5) of the ids of ensembles' predictions; a new one would name the same rows anew."""

type ModelMetrics = Mapping[str, Mapping[str, float]]
type ModelFilter = Callable[[str, dict[str, float]], bool]
type Member = tuple[str, dict[str, Any]]
"""A model's id and its prediction dict."""


@dataclass(frozen=True)
class TopN:
    """Keeps the n best models by the ranking key; made by `top_n`.

    "The best" exist only among others, so `apply_model_filter` hands it all models at once. Asked about one model
    alone it keeps it, if it keeps any.
    """

    n: int

    def __call__(self, model_id: str, metrics: Mapping[str, float]) -> bool:
        """True unless n is 0: one model alone is the best there is."""
        return self.n > 0

    def keep(self, model_metrics: ModelMetrics, ranking_key: str, ranking_direction: str) -> set[str]:
        """The ids of the n best; ties by id.

        A model without a finite value of `ranking_key` is not among the best, unless none has one: before the first
        ranking, the first n by id are kept, so that there is an ensemble from the start.
        """
        values = {model_id: as_number(metrics.get(ranking_key)) for model_id, metrics in model_metrics.items()}
        ranked = {model_id: value for model_id, value in values.items() if value is not None}
        sign = 1.0 if ranking_direction == "asc" else -1.0
        best = sorted(ranked, key=lambda model_id: (sign * ranked[model_id], model_id)) or sorted(values)
        return set(best[: self.n])


def top_n(n: int) -> TopN:
    """A filter that keeps the n best models by the configured ranking key and direction.

    Raises:
        ValueError: n is negative.
    """
    if n < 0:
        raise ValueError(f"top_n needs 0 or more, got {n}")
    return TopN(n)


def min_metric(name: str, threshold: float) -> ModelFilter:
    """A filter that keeps models whose metric `name` is above `threshold`; a model without it is not kept."""

    def above(model_id: str, metrics: Mapping[str, float]) -> bool:
        value = as_number(metrics.get(name))
        return value is not None and value > threshold

    return above


def apply_model_filter(
    model_filter: Callable[..., Any] | None,
    model_metrics: dict[str, dict[str, float]],
    predictions: dict[str, list[dict[str, Any]]],
    ranking_key: str = "score_recent",
    ranking_direction: str = "desc",
) -> dict[str, list[dict[str, Any]]]:
    """The predictions of the models that may be members.

    Args:
        model_filter: asked about each model with its metrics ({} where it has none); a `TopN` about all at once. None
            keeps every real model.
        model_metrics: may hold more models than `predictions`.
        predictions: of all models; ensembles are never kept.
        ranking_key: what a `TopN` ranks by, as the config's aggregation says.
        ranking_direction: 'desc' (the largest is best) or 'asc'.

    Raises:
        Exception: whatever an operator's filter raises.
    """
    real = {model_id: rows for model_id, rows in predictions.items() if not is_ensemble_model(model_id)}
    if model_filter is None:
        return real
    metrics = {model_id: model_metrics.get(model_id, {}) for model_id in real}
    if isinstance(model_filter, TopN):
        kept = model_filter.keep(metrics, ranking_key, ranking_direction)
    else:
        kept = {model_id for model_id in real if model_filter(model_id, metrics[model_id])}
    return {model_id: rows for model_id, rows in real.items() if model_id in kept}


def normalised_weights(weights: Mapping[str, Any]) -> dict[str, float]:
    """Weights of real models, scaled to sum to 1 (to rounding); {} where none is positive.

    A weight that is not a finite number above 0, such as an operator's strategy may give, is no membership.
    """
    numbers = {model_id: as_number(weight) for model_id, weight in weights.items() if not is_ensemble_model(model_id)}
    positive = {model_id: weight for model_id, weight in numbers.items() if weight is not None and weight > 0.0}
    if not positive:
        return {}
    largest = max(positive.values())
    # Scaled by the largest first: the sum of weights near the largest float would be infinite.
    total = math.fsum(weight / largest for weight in positive.values())
    return {model_id: weight / largest / total for model_id, weight in positive.items()}


def equal_weight(
    model_metrics: dict[str, dict[str, float]], predictions: dict[str, list[dict[str, Any]]]
) -> dict[str, float]:
    """The same weight for every real model of `predictions`; {} for none."""
    return normalised_weights(dict.fromkeys(predictions, 1.0))


def inverse_variance(
    model_metrics: dict[str, dict[str, float]], predictions: dict[str, list[dict[str, Any]]]
) -> dict[str, float]:
    """Weights in proportion to 1 / var(predictions), capped.

    w_i = 1 / max(var_i, V / MAX_PRECISION_RATIO), scaled to sum to 1. var_i is the sample variance (n - 1) of the
    model's signals; V, the typical variance, is the median (the upper of two middle ones) of the variances above 0.
    So no model weighs more than MAX_PRECISION_RATIO times one of typical variance, however little its signal moves,
    and above V / MAX_PRECISION_RATIO the weights are 1 / var exactly.

    A model with fewer than MIN_FOR_VARIANCE finite signals has no variance and no weight. Where no model has a
    variance above 0, the weights are equal.

    Source: the contract of this project; it is the portfolio of inverse variances (also "inverse volatility squared"),
    which has the least variance where the signals do not correlate.
    """
    return weights_by_variance({model_id: sample_variance(_signals(rows)) for model_id, rows in predictions.items()})


def inverse_error_variance(
    model_metrics: dict[str, dict[str, float]], predictions: dict[str, list[dict[str, Any]]]
) -> dict[str, float]:
    """Weights in proportion to 1 / var(errors), capped; for signals that forecast the actual return itself.

    An error is signal - actual return, the latter being the prediction dict's `actual_return`; predictions without
    either are left out. w_i = 1 / max(var_i, V / MAX_PRECISION_RATIO), as in `inverse_variance` but for the var_i.

    Source: J. M. Bates and C. W. J. Granger, "The Combination of Forecasts", Operational Research Quarterly 20 (1969),
    451-468: of unbiased forecasts whose errors do not correlate, the combination with these weights has the least
    variance of error. A constant bias is not held against a model.
    """
    return weights_by_variance({model_id: sample_variance(_errors(rows)) for model_id, rows in predictions.items()})


def weights_by_variance(variances: Mapping[str, float | None]) -> dict[str, float]:
    """The capped inverses of variances as `inverse_variance` describes them; None for a model that has no variance."""
    real = {model_id: variance for model_id, variance in variances.items() if not is_ensemble_model(model_id)}
    known = {model_id: variance for model_id, variance in real.items() if variance is not None}
    positive = [variance for variance in known.values() if variance > 0.0]
    if not positive:
        return normalised_weights(dict.fromkeys(known or real, 1.0))
    typical = statistics.median_high(positive)
    least = 1.0 / MAX_PRECISION_RATIO
    return normalised_weights({model_id: 1.0 / max(variance / typical, least) for model_id, variance in known.items()})


def sample_variance(values: Sequence[float] | Floats) -> float | None:
    """The variance (n - 1) of the finite values; None with too few, or where it is beyond the largest float."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < MIN_FOR_VARIANCE:
        return None
    if finite.min() == finite.max():
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return as_number(np.var(finite, ddof=1))


def build_ensemble_predictions(
    name: str,
    weights: dict[str, float],
    predictions_by_model: dict[str, list[dict[str, Any]]],
    now: datetime | None = None,
) -> list[PredictionRecord]:
    """The ensemble's predictions: one for each (input_id, scope_key) at which a weighted model is present.

    Every numeric field of the members' outputs is averaged with the weights renormalised over the members that have
    the field; other fields are dropped, and an entry without a numeric field gives no prediction. Ids follow from
    name, input and scope, so building again gives the same rows. performed_at, resolvable_at, scope and
    prediction_config_id are taken over from the first member that has them. `meta` holds the ensemble's name and the
    weights of the members present, summing to 1.

    Args:
        name: the ensemble's, as in its config.
        weights: by model id; those of ensembles, and those that are not finite and positive, are ignored.
        predictions_by_model: prediction dicts, of each model the first with a key; those without a key are ignored.
        now: performed_at where no member says it; by default the wall clock.
    """
    entries: dict[EntryKey, list[Member]] = {}
    for model_id in normalised_weights(weights):
        for key, prediction in _first_by_key(predictions_by_model.get(model_id, [])).items():
            entries.setdefault(key, []).append((model_id, prediction))
    moment = now or utc_now()
    records = (_ensemble_prediction(name, key, weights, members, moment) for key, members in entries.items())
    return [record for record in records if record is not None]


def _first_by_key(predictions: Sequence[dict[str, Any]]) -> dict[EntryKey, dict[str, Any]]:
    found: dict[EntryKey, dict[str, Any]] = {}
    for prediction in predictions:
        key = entry_key(prediction)
        if key is not None:
            found.setdefault(key, prediction)
    return found


def _ensemble_prediction(
    name: str, key: EntryKey, weights: Mapping[str, float], members: list[Member], now: datetime
) -> PredictionRecord | None:
    """One averaged prediction; None where the members' outputs hold no number."""
    shares = normalised_weights({model_id: weights[model_id] for model_id, _ in members})
    output = _averaged_output(shares, members)
    if not output:
        return None
    input_id, scope_key = key
    model_id = ensemble_model_id(name)
    return PredictionRecord(
        id=str(uuid.uuid5(_PREDICTION_IDS, json.dumps([model_id, input_id, scope_key]))),
        input_id=input_id,
        model_id=model_id,
        prediction_config_id=_first_given(members, "prediction_config_id"),
        scope_key=scope_key,
        scope=dict(_first_given(members, "scope") or {}),
        status=PredictionStatus.PENDING,
        exec_time_ms=0.0,
        inference_output=output,
        meta={"ensemble": name, "weights": shares},
        performed_at=_first_given(members, "performed_at") or now,
        resolvable_at=_first_given(members, "resolvable_at"),
    )


def _averaged_output(shares: Mapping[str, float], members: list[Member]) -> dict[str, float]:
    """Each numeric field's weighted mean over the members that have it, in order of first appearance."""
    values: dict[str, dict[str, float]] = {}
    for model_id, prediction in members:
        for field, value in (prediction.get("inference_output") or {}).items():
            number = as_number(value)
            if number is not None:
                values.setdefault(field, {})[model_id] = number
    averaged: dict[str, float] = {}
    for field, by_model in values.items():
        field_shares = normalised_weights({model_id: shares[model_id] for model_id in by_model})
        averaged[field] = math.fsum(share * by_model[model_id] for model_id, share in field_shares.items())
    return averaged


def _first_given(members: list[Member], field: str) -> Any:
    """The first member's value of `field` that is not None; None where no member has one."""
    return next((row[field] for _, row in members if row.get(field) is not None), None)


def _signals(predictions: Sequence[Mapping[str, Any]]) -> list[float]:
    signals = [signal_of(prediction.get("inference_output") or {}) for prediction in predictions]
    return [signal for signal in signals if signal is not None]


def _errors(predictions: Sequence[Mapping[str, Any]]) -> list[float]:
    pairs = [
        (signal_of(prediction.get("inference_output") or {}), as_number(prediction.get("actual_return")))
        for prediction in predictions
    ]
    return [signal - outcome for signal, outcome in pairs if signal is not None and outcome is not None]
