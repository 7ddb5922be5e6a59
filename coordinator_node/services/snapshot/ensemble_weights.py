"""What each model weighs in the config's ensembles from now on: computed from what is known now, stored with its time.

The predict stage applies the newest weights that are not younger than the slot, so no signal knows its own outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig, EnsembleConfig
from coordinator_node.db.json_text import encode_json
from coordinator_node.db.tables import ModelRow
from coordinator_node.entities.ensemble import ensemble_model_id, is_ensemble_model
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.json_values import reason_of
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.values import return_of
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.ensemble import (
    apply_model_filter,
    equal_weight,
    inverse_error_variance,
    inverse_variance,
    normalised_weights,
    sample_variance,
    weights_by_variance,
)
from coordinator_node.services.ranking import Standing
from coordinator_node.services.snapshot.observations import ObservationStore
from coordinator_node.services.snapshot.window_metrics import rows_of, signals_and_returns
from coordinator_node.services.snapshot.window_tables import Span

log = get_logger(__name__)

type Weights = dict[str, float]

_STORE = text(
    """
    INSERT INTO ensemble_weights (id, model_id, computed_at, weights_jsonb)
    VALUES (:id, :model_id, :now, CAST(:weights AS jsonb))
    """
)


# The built-in strategies read the leader's arrays; what they give is what they give for lists of dicts.
_FROM_ARRAYS: dict[Callable[..., Any], Callable[[Mapping[str, tuple[Floats, Floats]]], Weights]] = {
    equal_weight: lambda arrays: normalised_weights(dict.fromkeys(arrays, 1.0)),
    inverse_variance: lambda arrays: weights_by_variance(
        {model_id: sample_variance(signals) for model_id, (signals, _) in arrays.items()}
    ),
    inverse_error_variance: lambda arrays: weights_by_variance(
        {model_id: sample_variance(signals - returns) for model_id, (signals, returns) in arrays.items()}
    ),
}


def enabled_ensembles(config: CrunchConfig) -> list[EnsembleConfig]:
    """The ensembles that the config asks for."""
    return [ensemble for ensemble in config.ensembles if ensemble.enabled]


def strategies_need_rows(config: CrunchConfig) -> bool:
    """Whether some ensemble's strategy is the operator's own, and so is given predictions as lists of dicts."""
    return any(ensemble.strategy not in (None, *_FROM_ARRAYS) for ensemble in enabled_ensembles(config))


class EnsembleWeights:
    """Computes and stores the weights of all ensembles of a config; what has not changed is not stored again."""

    def __init__(self, config: CrunchConfig) -> None:
        self._config = config
        self._stored: dict[str, Weights] = {}

    def forget(self) -> None:
        """Store all anew next time."""
        self._stored = {}

    def write(
        self, session: Session, store: ObservationStore, standings: Sequence[Standing], span: Span, now: datetime
    ) -> int:
        """Store the weights as of `now`, with the ensembles' virtual models; returns how many ensembles have new ones.

        An ensemble whose strategy or filter raises keeps the weights it has; the log says why.
        """
        metrics = {
            standing.model_id: {name: value for name, value in standing.metrics.items() if value is not None}
            for standing in standings
        }
        written = 0
        for ensemble in enabled_ensembles(self._config):
            try:
                weights = self._weights(ensemble, store, metrics, span)
            except RAISED_BY_CALLABLES as error:  # whatever it raised, the ensemble keeps its weights
                log.warning("an ensemble keeps its weights", ensemble=ensemble.name, reason=reason_of(error))
                continue
            if self._stored.get(ensemble.name) != weights:
                self._store(session, ensemble.name, weights, now)
                written += 1
        return written

    def _weights(
        self, ensemble: EnsembleConfig, store: ObservationStore, metrics: dict[str, dict[str, float]], span: Span
    ) -> Weights:
        candidates: dict[str, list[dict[str, Any]]] = {
            model_id: [] for model_id in sorted(store.models) if not is_ensemble_model(model_id)
        }
        aggregation = self._config.aggregation
        kept = apply_model_filter(
            ensemble.model_filter, metrics, candidates, aggregation.ranking_key, aggregation.ranking_direction
        )
        members = list(kept)
        strategy = ensemble.strategy or inverse_variance
        from_arrays = _FROM_ARRAYS.get(strategy)
        if from_arrays is not None:
            return from_arrays({model_id: signals_and_returns(store, model_id, span) for model_id in members})
        given = strategy(
            {model_id: metrics.get(model_id, {}) for model_id in members},
            {model_id: _with_returns(store, model_id, span) for model_id in members},
        )
        return normalised_weights({model_id: weight for model_id, weight in dict(given).items() if model_id in kept})

    def _store(self, session: Session, name: str, weights: Weights, now: datetime) -> None:
        model_id = ensemble_model_id(name)
        session.connection().execute(_virtual_model(model_id, name, now))
        values = {"id": new_id(), "model_id": model_id, "now": now, "weights": encode_json(weights)}
        session.connection().execute(_STORE, values)
        self._stored[name] = weights


def _virtual_model(model_id: str, name: str, now: datetime) -> Any:
    row = {
        "id": model_id,
        "name": name,
        "deployment_identifier": "",
        "player_id": "",
        "player_name": "",
        "meta_jsonb": {"ensemble": name},
        "scores_by_scope_jsonb": [],
        "created_at": now,
        "updated_at": now,
    }
    return insert(ModelRow).values(row).on_conflict_do_nothing(index_elements=["id"])


def _with_returns(store: ObservationStore, model_id: str, span: Span) -> list[dict[str, Any]]:
    """The model's predictions, each with the `actual_return` that came of it, null where there is none."""
    predictions, scores = rows_of(store, model_id, span)
    return [
        {**prediction, "actual_return": return_of(score["result"], score["ground_truth"])}
        for prediction, score in zip(predictions, scores, strict=True)
    ]
