"""What a backtest gives back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coordinator_node.backtest.equity import Equity, equity_of
from coordinator_node.backtest.judge import Judged
from coordinator_node.backtest.numbers import Numbers, numbers_of
from coordinator_node.backtest.plot import equity_svg, table_html
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus
from coordinator_node.metrics.arrays import Floats

if TYPE_CHECKING:
    import pandas


class MissingPandasError(ImportError):
    """Something that needs pandas was asked for where there is none; the message says how to get it."""


def import_pandas() -> Any:
    """The module pandas.

    Raises:
        MissingPandasError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPandasError(
            'pandas is needed for frames: pip install "coordinator-node[backtest]"; metrics, summary() and to_parquet()'
            " work without it"
        ) from error
    return pandas


@dataclass(frozen=True)
class Effort:
    """What a run took: records played, seconds in all, and those of them spent in the model's own code."""

    bars: int
    seconds: float
    model_seconds: float


@dataclass
class BacktestResult:
    """One model over one period.

    `metrics` are what the leaderboard would say at the end of it: the config's windows and metrics, and those named in
    `standing.BESIDE`; `run_metrics` the built-in ones of them over the whole period. All values are floats, NaN where
    undefined. `costs_bps` is in `net_mean_return` and in the equity curve, not in scores. `missed` counts slots nobody
    could be asked in, by reason; `warnings` are for a person to read. `diversity` is what the coordinator says of a
    deployed model, None where it was not asked.
    """

    model_id: str
    start: datetime
    end: datetime
    judged: list[Judged] = field(repr=False)
    metrics: dict[str, float]
    costs_bps: float
    missed: Mapping[str, int]
    warnings: list[str]
    run_metrics: dict[str, float] = field(default_factory=dict)
    effort: Effort = Effort(0, 0.0, 0.0)
    diversity: dict[str, Any] | None = None

    @cached_property
    def numbers(self) -> Numbers:
        """The predictions' signals, returns and scores."""
        return numbers_of(self.judged)

    @cached_property
    def equity(self) -> Equity:
        """What following the signals would have earned."""
        return equity_of(self.numbers, self.costs_bps)

    @property
    def counts(self) -> dict[str, int]:
        """How many predictions there are of each status, in the order of the statuses."""
        counted = Counter(one.record.status for one in self.judged)
        return {status.value: counted[status] for status in PredictionStatus if counted[status]}

    @cached_property
    def predictions_df(self) -> pandas.DataFrame:
        """One row a prediction, in the order of their outcomes.

        Raises:
            MissingPandasError: there is no pandas.
        """
        frame: pandas.DataFrame = import_pandas().DataFrame(self._columns())
        return frame

    def _columns(self) -> dict[str, list[Any]]:
        records = [one.record for one in self.judged]
        columns: dict[str, list[Any]] = {
            "performed_at": [record.performed_at for record in records],
            "resolvable_at": [one.resolvable_at for one in self.judged],
            "scope_key": [record.scope_key for record in records],
            "subject": [record.scope.get("subject") for record in records],
            **_feature_indexes(records),
            "status": [record.status.value for record in records],
            "failed_reason": [one.failed_reason for one in self.judged],
            "signal": self.numbers.signals.tolist(),
            "actual_return": self.numbers.returns.tolist(),
            "score": self.numbers.scores.tolist(),
            "exec_time_ms": [record.exec_time_ms for record in records],
            "earned": self._spread(self.equity.earned),
            "equity": self._spread(self.equity.curve),
            "output": [record.inference_output for record in records],
            "result": [one.result for one in self.judged],
        }
        return columns

    def _spread(self, values: Floats) -> list[float]:
        """The values of the curve's entries at their predictions, NaN at all others."""
        spread = np.full(len(self.judged), np.nan)
        spread[self.equity.places] = values
        found: list[float] = spread.tolist()
        return found

    def to_parquet(self, path: str | Path) -> Path:
        """Write the predictions, `output` and `result` as JSON text; returns where they are."""
        columns = self._columns()
        for name in ("output", "result"):
            columns[name] = [json.dumps(value) for value in columns[name]]
        target = Path(path)
        pq.write_table(pa.table(columns), target)
        return target

    def summary(self) -> str:
        """The counts, the metrics and the warnings as text."""
        lines = [
            f"{self.model_id}: {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC",
            f"  {self._said_counts()}",
            f"  {'':<22}{'at the end':>14}{'whole run':>14}",
        ]
        lines += [f"  {name:<22}{at_end:>14}{whole:>14}" for name, at_end, whole in self._metric_rows()]
        lines += [f"  ! {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _said_counts(self) -> str:
        counted = ", ".join(f"{count:,} {status}" for status, count in self.counts.items()) or "no predictions"
        missed = sum(self.missed.values())
        return f"{counted}; {missed:,} slots missed" if missed else counted

    def _metric_rows(self) -> list[tuple[str, str, str]]:
        names = list(dict.fromkeys([*self.metrics, *self.run_metrics]))
        return [(name, _shown(self.metrics.get(name)), _shown(self.run_metrics.get(name))) for name in names]

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        warnings = "".join(f"<p>⚠ {escape(warning)}</p>" for warning in self.warnings)
        table = table_html(("metric", "at the end", "whole run"), self._metric_rows())
        period = f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"
        head = f"<p><b>{escape(self.model_id)}</b>, {period}: {escape(self._said_counts())}</p>"
        plot = equity_svg(self.equity, [one.resolvable_at for one in self.judged])
        return f"<div>{head}{plot}{table}{warnings}</div>"


class BacktestSet:
    """Several results by name: folds, models, or parameters."""

    def __init__(self, results: Mapping[str, BacktestResult]) -> None:
        self.results = dict(results)

    def __getitem__(self, name: str) -> BacktestResult:
        return self.results[name]

    def __len__(self) -> int:
        return len(self.results)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of each, by its name."""
        return {name: result.metrics for name, result in self.results.items()}

    @property
    def metrics_df(self) -> pandas.DataFrame:
        """One row each, one column a metric.

        Raises:
            MissingPandasError: there is no pandas.
        """
        frame: pandas.DataFrame = import_pandas().DataFrame.from_dict(self.metrics, orient="index")
        return frame

    def summary(self) -> str:
        """The metrics at the end of each, as a table of text."""
        names, rows = self._rows()
        widths = [max(len(row[place]) for row in [names, *rows]) for place in range(len(names))]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [names, *rows]
        )

    def _rows(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        names = list(dict.fromkeys(name for own in self.metrics.values() for name in own))
        rows = [(name, *(_shown(own.get(each)) for each in names)) for name, own in self.metrics.items()]
        return ("", *names), list(rows)

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return table_html(*self._rows())


def _feature_indexes(records: Sequence[PredictionRecord]) -> dict[str, list[Any]]:
    """Which row of its round each prediction is for, where there are rounds."""
    found = [record.scope.get("feature_index") for record in records if record.prediction_config_id is None]
    return {"feature_index": found} if found else {}


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:+.6f}"
