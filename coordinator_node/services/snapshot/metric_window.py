"""The rolling window of observations that a cycle's metrics are taken over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.entities.json_values import fault_in
from coordinator_node.metrics.context import MetricsContext
from coordinator_node.metrics.values import as_number
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

WINDOW = timedelta(hours=168)
NEWEST_OBSERVATIONS = 5000
"""How many observations of a model are looked at, the newest ones."""

# Of the ground truth only what a metric may take as the return is read: it may hold the whole input (horizon 0). An
# input without a scope of its own keeps its truths by scope and time, as services.score.store.actuals_key names them.
_READ = text(
    """
    SELECT seen.* FROM models CROSS JOIN LATERAL (
        SELECT prediction.model_id, prediction.input_id, prediction.scope_key, prediction.scope_jsonb,
               prediction.performed_at, prediction.resolvable_at, prediction.inference_output_jsonb,
               scores.result_jsonb, scores.scored_at,
               truth.actuals -> 'actual_return' AS actual_return, truth.actuals -> 'profit' AS profit
        FROM predictions AS prediction
        JOIN scores ON scores.prediction_id = prediction.id AND scores.generation = 1 AND scores.success
        JOIN inputs ON inputs.id = prediction.input_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN inputs.scope_jsonb IS NOT NULL THEN inputs.actuals_jsonb ELSE inputs.actuals_jsonb -> (
                prediction.scope_key || '@'
                || to_char(prediction.resolvable_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            ) END AS actuals
        ) AS truth
        WHERE prediction.model_id = models.id AND prediction.status = 'SCORED'
          AND prediction.resolvable_at > :after AND prediction.resolvable_at <= :until
        ORDER BY prediction.resolvable_at DESC, prediction.id DESC
        LIMIT :newest
    ) AS seen
    ORDER BY seen.model_id, seen.performed_at, seen.scope_key, seen.input_id
    """
)


@dataclass
class Observations:
    """One model's window: predictions and their scores, aligned, in time order; the shapes are those of public.md."""

    predictions: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)


class MetricWindow:
    """The observations of all models in the window that ends at `end`."""

    def __init__(self, session: Session, end: datetime) -> None:
        self._end = end
        self._observations: dict[str, Observations] = {}
        values = {"after": end - WINDOW, "until": end, "newest": NEWEST_OBSERVATIONS}
        for row in session.connection().execute(_READ, values):
            own = self._observations.setdefault(row.model_id, Observations())
            keys = {"input_id": row.input_id, "scope_key": row.scope_key}
            own.predictions.append(
                {
                    "inference_output": _object(row.inference_output_jsonb),
                    "performed_at": row.performed_at,
                    "scope": _object(row.scope_jsonb),
                    **keys,
                }
            )
            truth = {"actual_return": row.actual_return, "profit": row.profit}
            own.scores.append(
                {"result": _object(row.result_jsonb), "scored_at": row.scored_at, "ground_truth": truth, **keys}
            )
        said = {model_id: own.predictions for model_id, own in self._observations.items()}
        self._real = {model_id: rows for model_id, rows in said.items() if not is_ensemble_model(model_id)}
        self._ensembles = {model_id: rows for model_id, rows in said.items() if is_ensemble_model(model_id)}

    def metrics(self, config: CrunchConfig, model_ids: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """The config's metrics of each model: finite numbers, null for every named one that is undefined."""
        computed: dict[str, dict[str, float | None]] = {}
        problem: str | None = None
        for model_id in model_ids:
            own = self._observations.get(model_id, Observations())
            try:
                given = config.compute_metrics(config.metrics, own.predictions, own.scores, self._context(model_id))
                computed[model_id] = _finite(config.metrics, dict(given))
            except Exception as error:  # an operator's callable may raise anything; metrics are then undefined
                problem = problem or f"for model {model_id}: {type(error).__name__}: {error}"
                computed[model_id] = dict.fromkeys(config.metrics)
        if problem:
            log.warning("compute_metrics failed; its metrics are null in this cycle", reason=problem)
        return computed

    def _context(self, model_id: str) -> MetricsContext:
        return MetricsContext(
            model_id=model_id,
            window_start=self._end - WINDOW,
            window_end=self._end,
            all_model_predictions=self._real,
            ensemble_predictions=self._ensembles,
        )


def _finite(names: Sequence[str], given: dict[Any, Any]) -> dict[str, float | None]:
    """The named metrics, and whatever else was given under a storable name, as finite numbers or null."""
    others = (key for key in given if isinstance(key, str) and fault_in(key, "name") is None)
    keys = dict.fromkeys([*names, *others])
    return {key: as_number(given.get(key)) for key in keys}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
