"""The config's metrics over the leader's memory: built-in ones for all models at once, operators' own one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coordinator_node.crunch_config import CrunchConfig, default_compute_metrics
from coordinator_node.entities.ensemble import ensemble_model_id, is_ensemble_model
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.json_values import fault_in, reason_of
from coordinator_node.metrics import MetricsContext, get_default_registry
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.values import as_number
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.snapshot.observations import ObservationStore
from coordinator_node.services.snapshot.window_tables import Span, measured_tables

log = get_logger(__name__)

type Metrics = dict[str, dict[str, float | None]]
"""By model id and name; null where undefined."""

type ObservedRows = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""A model's predictions and scores in the shapes of public.md: aligned, in time order."""


def needs_rows(config: CrunchConfig) -> bool:
    """Whether some metric is the operator's own, and so is given predictions and scores as lists of dicts."""
    registry = get_default_registry()
    return config.compute_metrics is not default_compute_metrics or any(
        registry.get(name) is not None and not registry.is_table_measure(name) for name in config.metrics
    )


def window_metrics(store: ObservationStore, config: CrunchConfig, model_ids: Sequence[str], span: Span) -> Metrics:
    """The config's metrics of each model over what resolved in the span.

    Every number is finite. A named metric is null where it is undefined, and where it raised, which is logged once.
    """
    found: Metrics = {model_id: dict.fromkeys(config.metrics) for model_id in model_ids}
    if config.compute_metrics is not default_compute_metrics:
        _take_over(found, _computed_by_operator(store, config, config.metrics, model_ids, span))
        return found
    registry = get_default_registry()
    built_in = [name for name in config.metrics if registry.is_table_measure(name)]
    others = [name for name in config.metrics if name not in built_in]
    for table, rows in measured_tables(store, model_ids, span, first_ensemble(store, config)):
        for model_id, values in registry.compute_table(built_in, table, span.until, rows).items():
            found[model_id] |= values
    if others:
        _take_over(found, _computed_by_operator(store, config, others, model_ids, span))
    return found


def first_ensemble(store: ObservationStore, config: CrunchConfig) -> str | None:
    """The ensemble that models are measured against: the first of the config, else of those there are, by id."""
    there = [ensemble_model_id(ensemble.name) for ensemble in config.ensembles if ensemble.enabled]
    there += sorted(model_id for model_id in store.models if is_ensemble_model(model_id))
    return next((model_id for model_id in there if model_id in store.models), None)


def rows_of(store: ObservationStore, model_id: str, span: Span) -> ObservedRows:
    """A model's predictions and scores in the span; empty where it has none, or the store keeps no rows."""
    window = store.models.get(model_id)
    if window is None or not store.keeps_rows:
        return [], []
    part = window.between(span.after, span.until)
    rows, entries = window.rows[part], window.entries[part]
    performed = store.performed(entries)
    if not (np.diff(performed) > 0).all():
        keys = store.keys(entries.tolist())
        order = sorted(range(len(keys)), key=lambda place: (performed[place], keys[place][1], keys[place][0]))
        rows = [rows[place] for place in order]
    return [prediction for prediction, _ in rows], [score for _, score in rows]


def _take_over(found: Metrics, computed: Mapping[str, Mapping[Any, Any]]) -> None:
    """Add what an operator's function gave: finite numbers, else null, under names that can be stored."""
    for model_id, given in computed.items():
        for name, value in given.items():
            if isinstance(name, str) and fault_in(name, "name") is None:
                found[model_id][name] = as_number(value)


def _computed_by_operator(
    store: ObservationStore, config: CrunchConfig, names: Sequence[str], model_ids: Sequence[str], span: Span
) -> dict[str, dict[Any, Any]]:
    """What `compute_metrics` gives for each model; nothing for one for which it raises."""
    rows = {model_id: rows_of(store, model_id, span) for model_id in store.models}
    real = {model_id: own for model_id, (own, _) in rows.items() if own and not is_ensemble_model(model_id)}
    computed: dict[str, dict[Any, Any]] = {}
    problem: str | None = None
    for model_id in model_ids:
        predictions, scores = rows.get(model_id, ([], []))
        context = MetricsContext(
            model_id=model_id,
            window_start=span.after,
            window_end=span.until,
            all_model_predictions=real,
            ensemble_predictions=_ensembles_first(rows, first_ensemble(store, config)),
        )
        try:
            computed[model_id] = dict(config.compute_metrics(list(names), predictions, scores, context))
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything; metrics are then undefined
            problem = problem or f"for model {model_id}: {reason_of(error)}"
    if problem:
        log.warning("compute_metrics failed; its metrics are null in this cycle", reason=problem)
    return computed


def _ensembles_first(rows: Mapping[str, ObservedRows], first: str | None) -> dict[str, list[dict[str, Any]]]:
    there = [model_id for model_id, (own, _) in sorted(rows.items()) if own and is_ensemble_model(model_id)]
    return {model_id: rows[model_id][0] for model_id in sorted(there, key=lambda model_id: model_id != first)}


def signals_and_returns(store: ObservationStore, model_id: str, span: Span) -> tuple[Floats, Floats]:
    """A model's signals and actual returns in the span, in time order; NaN where there is none."""
    window = store.models[model_id]
    part = window.between(span.after, span.until)
    return window.values[0, part], window.values[2, part]
