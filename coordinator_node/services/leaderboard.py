"""Writes the leaderboard, and with it each model's own scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.tables import LeaderboardRow
from coordinator_node.services.model_rows import lock_models
from coordinator_node.services.ranking import Ranking, Standing, exact_mean, window_starts

# The scopes in a snapshot's meta are those that services.snapshot.summary writes, so only its own rows are read.
_SCOPE_WINDOWS = text(
    """
    SELECT snapshots.model_id, scope.key AS scope_key, windows.name,
           sum((scope.value ->> 'value')::numeric * (scope.value ->> 'prediction_count')::bigint) AS total,
           sum((scope.value ->> 'prediction_count')::bigint) AS weight
    FROM snapshots
    JOIN unnest(CAST(:names AS text[]), CAST(:afters AS timestamptz[])) AS windows(name, after)
      ON snapshots.period_end > windows.after
    CROSS JOIN LATERAL jsonb_each(snapshots.meta_jsonb -> 'scopes') AS scope
    WHERE snapshots.period_end > :earliest AND snapshots.period_end <= :as_of AND snapshots.cycle_id IS NOT NULL
      AND jsonb_typeof(scope.value -> 'value') = 'number'
    GROUP BY snapshots.model_id, scope.key, windows.name
    """
)
_UPDATE_MODELS = text(
    """
    UPDATE models SET overall_score_jsonb = stood.overall, scores_by_scope_jsonb = stood.by_scope, updated_at = :now
    FROM unnest(CAST(:ids AS text[]), CAST(:overalls AS jsonb[]), CAST(:by_scopes AS jsonb[]))
         AS stood(id, overall, by_scope)
    WHERE models.id = stood.id
      AND (models.overall_score_jsonb, models.scores_by_scope_jsonb) IS DISTINCT FROM (stood.overall, stood.by_scope)
    """
)


class Leaderboard:
    """Ranks all models by one config and writes what came of it.

    Raises:
        ConfigurationError: when made, see `Ranking`.
    """

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._ranking = Ranking(config, settings)
        self._aggregation = config.aggregation

    def write(self, session: Session, now: datetime) -> bool:
        """Write a leaderboard as of `now`, and the models' own scores; False where there is no model yet.

        Models without a value are listed unranked at the end, after them the ensembles, which are never ranked.

        Raises:
            RankingError: see `Ranking.ranked`.
        """
        standings = self._ranking.ranked(self._ranking.standings(session, now))
        if not standings:
            return False
        session.add(LeaderboardRow(created_at=now, entries_jsonb=[standing.entry() for standing in standings]))
        session.flush()
        self._update_models(session, standings, now)
        return True

    def _update_models(self, session: Session, standings: Sequence[Standing], now: datetime) -> None:
        by_scope = self._scores_by_scope(session, now)
        ids = [standing.model_id for standing in standings]
        values = {
            "ids": ids,
            "overalls": [json.dumps(standing.entry()["score"], allow_nan=False) for standing in standings],
            "by_scopes": [json.dumps(by_scope.get(model_id, []), allow_nan=False) for model_id in ids],
            "now": now,
        }
        lock_models(session, ids)
        session.connection().execute(_UPDATE_MODELS, values)

    def _scores_by_scope(self, session: Session, as_of: datetime) -> dict[str, list[dict[str, Any]]]:
        """For each model {scope_key, metrics: its windows over that scope alone, ranking}, in order of scope_key."""
        starts = window_starts(self._aggregation, as_of)
        if not starts:
            return {}
        values = {
            "names": list(starts),
            "afters": list(starts.values()),
            "earliest": min(starts.values()),
            "as_of": as_of,
        }
        means: dict[str, dict[str, dict[str, float | None]]] = {}
        for row in session.connection().execute(_SCOPE_WINDOWS, values):
            scopes = means.setdefault(row.model_id, {})
            windows = scopes.setdefault(row.scope_key, dict.fromkeys(starts))
            windows[row.name] = exact_mean(row.total, row.weight)
        return {
            model_id: [self._scope_score(scope_key, windows) for scope_key, windows in sorted(scopes.items())]
            for model_id, scopes in means.items()
        }

    def _scope_score(self, scope_key: str, windows: dict[str, float | None]) -> dict[str, Any]:
        key = self._aggregation.ranking_key
        ranking = {"key": key, "value": windows.get(key), "direction": self._aggregation.ranking_direction}
        return {"scope_key": scope_key, "metrics": windows, "ranking": ranking}
