"""The one aligned table that every built-in measure reads, and how it is made from lists of dicts.

A prediction dict is `{"inference_output": dict, "performed_at": datetime, "scope": dict, "input_id": str, "scope_key":
str}`, a score dict `{"result": dict, "scored_at": datetime}`, also with `input_id` and `scope_key`, and with
`ground_truth` where the result does not hold the return. An ensemble's prediction dict may carry
`{"meta": {"weights": {model_id: weight}}}`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.entities.times import as_utc
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.context import MetricsContext
from coordinator_node.metrics.correlation import average_ranks
from coordinator_node.metrics.values import as_number, return_of, score_of, signal_of

type EntryKey = tuple[str, str]
"""What pairs the observations of two models: (input_id, scope_key)."""

type Columns = dict[object, int]
"""An entry's key (or, where it has none, a token of its own) and its column."""


@dataclass(frozen=True, eq=False)
class ObservationTable:
    """The observations of m models over n entries (an entry is one input and scope), NaN where there is none.

    Columns are in time order; two models are compared column by column. `scopes` numbers each column's scope. A row
    may be an ensemble's, to be measured; it counts in no other row's measures. `ensemble` holds the signals of the
    ensemble that models are measured against, None without one; `ensemble_weights` what each model weighed in it at
    each entry, 0 for no member; None where that is not known, and then all real models weigh the same.
    """

    model_ids: tuple[str, ...]
    scopes: NDArray[np.intp]
    """(n,)"""
    signals: Floats
    """(m, n)"""
    scores: Floats
    """(m, n)"""
    returns: Floats
    """(m, n)"""
    ensemble: Floats | None = None
    """(n,)"""
    ensemble_weights: Floats | None = None
    """(m, n), not negative"""
    window_ranks: Floats | None = None
    """(m, n): `ranks`, where the table holds only some of the entries of the models' windows; None if it holds all"""

    @functools.cached_property
    def ranks(self) -> Floats:
        """(m, n): the rank of each signal among all of its model's window, equal ones sharing the average; else NaN."""
        if self.window_ranks is not None:
            return self.window_ranks
        return np.vstack([average_ranks(np.where(np.isfinite(row), row, np.nan)) for row in self.signals])

    @property
    def real(self) -> NDArray[np.bool_]:
        """(m,): which rows are real models, not ensembles."""
        return np.array([not is_ensemble_model(model_id) for model_id in self.model_ids], dtype=np.bool_)


def entry_key(entry: Mapping[str, Any]) -> EntryKey | None:
    """(input_id, scope_key) of a prediction or score dict; None where one of them is missing."""
    input_id, scope_key = entry.get("input_id"), entry.get("scope_key")
    return None if input_id is None or scope_key is None else (input_id, scope_key)


def scores_for(
    predictions: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any] | None]:
    """The score of each prediction; None where it has none.

    Lists of the same length are taken as aligned unless their keys say otherwise; else a score belongs to the
    prediction with the same (input_id, scope_key), the first one where scores repeat a key.
    """
    if len(predictions) == len(scores) and all(map(_may_belong, predictions, scores)):
        return list(scores)
    by_key: dict[EntryKey, Mapping[str, Any]] = {}
    for score in scores:
        key = entry_key(score)
        if key is not None:
            by_key.setdefault(key, score)
    keys = [entry_key(prediction) for prediction in predictions]
    return [None if key is None else by_key.get(key) for key in keys]


def observation_table(
    predictions: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]], context: MetricsContext
) -> ObservationTable:
    """The table of one model and all that its context holds; the model is row 0.

    The others' rows have signals only. Columns are in order of `performed_at`, then scope_key and input_id; of the
    lists, where a prediction has no time. Of a model's predictions with the same key, the first counts. A prediction
    without a key stands in a column of its own, so nothing is compared with it. Ensembles are not among the
    others.
    """
    others = {
        model_id: model_predictions
        for model_id, model_predictions in context.all_model_predictions.items()
        if model_id != context.model_id and not is_ensemble_model(model_id)
    }
    model_ids = (context.model_id, *others)
    ensemble = next(iter(context.ensemble_predictions.values()), None)
    rows = [predictions, *others.values()]
    columns, scopes = _columns([*rows, ensemble or []])
    signals = np.vstack([_signals(row, columns) for row in rows])
    own_scores, own_returns = _outcomes(predictions, scores, columns)
    nothing = np.full((len(others), len(columns)), np.nan)
    return ObservationTable(
        model_ids=model_ids,
        scopes=scopes,
        signals=signals,
        scores=np.vstack([own_scores, nothing]),
        returns=np.vstack([own_returns, nothing]),
        ensemble=None if ensemble is None else _signals(ensemble, columns),
        ensemble_weights=None if ensemble is None else _weights(ensemble, columns, model_ids),
    )


def _may_belong(prediction: Mapping[str, Any], score: Mapping[str, Any]) -> bool:
    """False only where both have a key and the keys differ."""
    key = entry_key(score)
    return key is None or entry_key(prediction) in (None, key)


def _token(prediction: Mapping[str, Any]) -> object:
    """What a prediction's column is found by: its key, or the dict's own identity."""
    return entry_key(prediction) or id(prediction)


def _columns(rows: Iterable[Sequence[Mapping[str, Any]]]) -> tuple[Columns, NDArray[np.intp]]:
    """The columns of all predictions, in time order, and the number of each column's scope."""
    first: dict[object, Mapping[str, Any]] = {}
    for row in rows:
        for prediction in row:
            first.setdefault(_token(prediction), prediction)
    entries = list(first.items())
    if all(isinstance(prediction.get("performed_at"), datetime) for _, prediction in entries):
        entries.sort(key=lambda entry: _time_order(entry[1]))
    numbers: dict[str, int] = {}
    scopes = [numbers.setdefault(str(prediction.get("scope_key")), len(numbers)) for _, prediction in entries]
    columns = {token: column for column, (token, _) in enumerate(entries)}
    return columns, np.array(scopes, dtype=np.intp)


def _time_order(prediction: Mapping[str, Any]) -> tuple[datetime, str, str]:
    return as_utc(prediction["performed_at"]), str(prediction.get("scope_key")), str(prediction.get("input_id"))


def _signals(predictions: Sequence[Mapping[str, Any]], columns: Columns) -> Floats:
    values = [(_token(prediction), signal_of(prediction.get("inference_output") or {})) for prediction in predictions]
    return _row(values, columns)


def _outcomes(
    predictions: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]], columns: Columns
) -> tuple[Floats, Floats]:
    """Scores and actual returns; a score whose result says that it failed has neither."""
    score_values: list[tuple[object, float | None]] = []
    return_values: list[tuple[object, float | None]] = []
    for prediction, score in zip(predictions, scores_for(predictions, scores), strict=True):
        result = None if score is None else score.get("result")
        if score is not None and isinstance(result, Mapping) and result.get("success") is not False:
            score_values.append((_token(prediction), score_of(result)))
            return_values.append((_token(prediction), return_of(result, score.get("ground_truth"))))
    return _row(score_values, columns), _row(return_values, columns)


def _row(values: Iterable[tuple[object, float | None]], columns: Columns) -> Floats:
    """One row of the table: the first value of each column, NaN where there is none."""
    row = np.full(len(columns), np.nan)
    seen: set[object] = set()
    for token, value in values:
        if token not in seen:
            seen.add(token)
            row[columns[token]] = np.nan if value is None else value
    return row


def _weights(ensemble: Sequence[Mapping[str, Any]], columns: Columns, model_ids: Sequence[str]) -> Floats:
    """What each model weighed at each entry: as the ensemble's prediction says, else all the same."""
    weights = np.ones((len(model_ids), len(columns)))
    for prediction in ensemble:
        stated = (prediction.get("meta") or {}).get("weights")
        if isinstance(stated, Mapping):
            weighed = [as_number(stated.get(model_id)) or 0.0 for model_id in model_ids]
            weights[:, columns[_token(prediction)]] = np.maximum(weighed, 0.0)
    return weights
