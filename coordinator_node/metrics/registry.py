"""Metrics by name: the built-in ones, and those that an operator registers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.json_values import reason_of
from coordinator_node.metrics.builtin import BUILT_IN, TableMeasure
from coordinator_node.metrics.context import MetricsContext
from coordinator_node.metrics.observations import ObservationTable, observation_table
from coordinator_node.metrics.values import as_number

logger = logging.getLogger(__name__)

type MetricFn = Callable[[list[dict[str, Any]], list[dict[str, Any]], MetricsContext], float | None]
"""(predictions, scores, context) of one model, both lists aligned; the number, or None where it is undefined."""


class MetricsRegistry:
    """Metrics by name. A new one holds the built-in metrics; registering a name again replaces it.

    What goes wrong with a metric is logged once for each window's end, so once a score cycle and not once a model.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, MetricFn] = dict(BUILT_IN)
        self._logged: dict[str, datetime] = {}

    def register(self, name: str, fn: MetricFn) -> None:
        """Makes `fn` the metric `name`.

        Raises:
            ValueError: the name is empty.
            TypeError: `fn` cannot be called.
        """
        if not name:
            raise ValueError("a metric needs a name")
        if not callable(fn):
            raise TypeError(f"metric {name!r} is a {type(fn).__name__}, not a callable(predictions, scores, context)")
        self._metrics[name] = fn

    def get(self, name: str) -> MetricFn | None:
        """The metric `name`; None where there is none."""
        return self._metrics.get(name)

    def available(self) -> list[str]:
        """The names there are, in alphabetical order."""
        return sorted(self._metrics)

    def compute(
        self,
        metrics: list[str],
        predictions: list[dict[str, Any]],
        scores: list[dict[str, Any]],
        context: MetricsContext,
    ) -> dict[str, float]:
        """The named metrics of one model, always finite floats.

        A metric that is undefined is left out; so is, with a warning in the log, one that is unknown, raises, or gives
        something else than a finite number. The shapes of the dicts are in `observations`.
        """
        table = functools.cache(lambda: observation_table(predictions, scores, context))
        values: dict[str, float] = {}
        for name in metrics:
            fn = self._metrics.get(name)
            if fn is None:
                self._warn(name, context.window_end, f"is unknown; there are {', '.join(self.available())}")
                continue
            try:
                value = fn.of(table(), [0])[0] if isinstance(fn, TableMeasure) else fn(predictions, scores, context)
            except RAISED_BY_CALLABLES as error:  # an operator's metric may raise anything
                self._warn(name, context.window_end, f"raised {reason_of(error)}", context.model_id)
                continue
            self._keep(values, name, value, context.model_id, context.window_end)
        return values

    def is_table_measure(self, name: str) -> bool:
        """Whether `compute_table` gives the metric; one that is unknown or that an operator registered it does not."""
        return isinstance(self._metrics.get(name), TableMeasure)

    def compute_table(
        self, metrics: list[str], table: ObservationTable, window_end: datetime, rows: Sequence[int] | None = None
    ) -> dict[str, dict[str, float]]:
        """The built-in ones among `metrics` for models of a table at once: {model_id: {name: value}}.

        The same numbers that `compute` gives for each model on its own; metrics that an operator registered need that
        one. `rows` are the models wanted, all by default.
        """
        rows = range(len(table.model_ids)) if rows is None else rows
        values: dict[str, dict[str, float]] = {table.model_ids[row]: {} for row in rows}
        for name in metrics:
            fn = self._metrics.get(name)
            if isinstance(fn, TableMeasure):
                for row, value in zip(rows, fn.of(table, rows), strict=True):
                    model_id = table.model_ids[row]
                    self._keep(values[model_id], name, value, model_id, window_end)
        return values

    def _keep(self, values: dict[str, float], name: str, value: Any, model_id: str, window_end: datetime) -> None:
        if value is None:
            return
        number = as_number(value)
        if number is None:
            self._warn(name, window_end, f"gave {value!r}, which is no finite number", model_id)
        else:
            values[name] = number

    def _warn(self, name: str, window_end: datetime, what: str, model_id: str | None = None) -> None:
        if self._logged.get(name) != window_end:
            self._logged[name] = window_end
            of_model = "" if model_id is None else f" for model {model_id}"
            logger.warning("metric %r%s %s; it is left out", name, of_model, what)


@functools.cache
def get_default_registry() -> MetricsRegistry:
    """The process's own registry, which `CrunchConfig.compute_metrics` uses; operators register theirs here."""
    return MetricsRegistry()
