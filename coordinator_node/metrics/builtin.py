"""The built-in metrics by name: each reads the observation table and gives one number, or None, a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.context import MetricsContext
from coordinator_node.metrics.correlation import (
    information_coefficient_sharpes,
    information_coefficients,
    rank_correlations,
    spearman,
)
from coordinator_node.metrics.crowd import contribution, feature_neutral_correlation, leave_one_out_means
from coordinator_node.metrics.observations import ObservationTable, observation_table
from coordinator_node.metrics.returns import hit_rates, max_drawdowns, mean_return, sortino_ratio, turnover

type Measure = Callable[[ObservationTable, Sequence[int]], list[float | None]]
"""The values of the given rows of a table, None where undefined."""


@dataclass(frozen=True)
class TableMeasure:
    """A metric that reads the observation table; called with lists of dicts, it makes the table itself."""

    measure: Measure

    def __call__(
        self, predictions: list[dict[str, Any]], scores: list[dict[str, Any]], context: MetricsContext
    ) -> float | None:
        """The metric of the context's model; None where it is undefined."""
        return self.of(observation_table(predictions, scores, context), [0])[0]

    def of(self, table: ObservationTable, rows: Sequence[int]) -> list[float | None]:
        """The metric of each of `rows`; None where it is undefined.

        A value beyond the range of floats is infinite or NaN, for the caller to leave out.
        """
        with np.errstate(all="ignore"):
            return self.measure(table, rows)


def _each_row(measure: Callable[[ObservationTable, int], float | None]) -> TableMeasure:
    return TableMeasure(lambda table, rows: [measure(table, row) for row in rows])


def _taken(matrix: Floats, rows: Sequence[int]) -> Floats:
    """These rows of a matrix: itself, if they are all of them, because a copy takes as long as a measure."""
    return matrix if list(rows) == list(range(len(matrix))) else matrix[rows]


def _information_coefficients(table: ObservationTable, rows: Sequence[int]) -> list[float | None]:
    return information_coefficients(_taken(table.signals, rows), _taken(table.returns, rows), _taken(table.ranks, rows))


def _information_coefficient_sharpes(table: ObservationTable, rows: Sequence[int]) -> list[float | None]:
    return information_coefficient_sharpes(_taken(table.signals, rows), _taken(table.returns, rows))


def _model_correlations(table: ObservationTable, rows: Sequence[int]) -> list[float | None]:
    """Mean correlation with every other real model: ranks over each one's own window, Pearson over common entries."""
    correlations = rank_correlations(_taken(table.ranks, rows), table.ranks)
    correlations[np.arange(len(rows)), rows] = np.nan
    correlations[:, ~table.real] = np.nan
    defined = [row[np.isfinite(row)] for row in correlations]
    return [float(row.mean()) if row.size else None for row in defined]


def _others_means(table: ObservationTable, weights: Floats | None = None) -> Floats:
    """The weighted mean signal of the other real models, for each row and entry."""
    among = table.real[:, np.newaxis] * np.ones_like(table.signals)
    return leave_one_out_means(table.signals, among if weights is None else among * weights)


def _feature_neutral_correlations(table: ObservationTable, rows: Sequence[int]) -> list[float | None]:
    others = _others_means(table)
    return [feature_neutral_correlation(table.signals[row], others[row], table.returns[row]) for row in rows]


def _contributions(table: ObservationTable, rows: Sequence[int]) -> list[float | None]:
    """IC of the ensemble as it was stored minus IC of the other members' weighted mean, over the model's entries.

    Where the model was no member, the ensemble without it is the ensemble. An ensemble contributes to none.
    """
    if table.ensemble is None:
        return [None for _ in rows]
    without = _others_means(table, table.ensemble_weights)
    if table.ensemble_weights is not None:
        without = np.where(table.ensemble_weights > 0.0, without, table.ensemble)
    own = np.where(np.isfinite(table.signals), table.returns, np.nan)
    real = table.real
    return [contribution(table.ensemble, without[row], own[row]) if real[row] else None for row in rows]


def _ensemble_correlation(table: ObservationTable, row: int) -> float | None:
    return None if table.ensemble is None else spearman(table.signals[row], table.ensemble)


BUILT_IN: dict[str, TableMeasure] = {
    "ic": TableMeasure(_information_coefficients),
    "ic_sharpe": TableMeasure(_information_coefficient_sharpes),
    "mean_return": _each_row(lambda table, row: mean_return(table.signals[row], table.returns[row])),
    "hit_rate": TableMeasure(lambda table, rows: hit_rates(_taken(table.signals, rows), _taken(table.returns, rows))),
    "model_correlation": TableMeasure(_model_correlations),
    "max_drawdown": TableMeasure(lambda table, rows: max_drawdowns(_taken(table.scores, rows))),
    "sortino_ratio": _each_row(lambda table, row: sortino_ratio(table.signals[row], table.returns[row])),
    "turnover": _each_row(lambda table, row: turnover(table.signals[row], table.scopes)),
    "fnc": TableMeasure(_feature_neutral_correlations),
    "contribution": TableMeasure(_contributions),
    "ensemble_correlation": _each_row(_ensemble_correlation),
}
"""Every metric that a new registry knows; docs of the formulas are at the functions that they call."""
