"""Writes the leaderboard, and with it each model's own scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.json_text import encode_json
from coordinator_node.db.tables import LeaderboardRow
from coordinator_node.services.model_rows import lock_models
from coordinator_node.services.ranking import Ranking, Standing
from coordinator_node.services.window_sums import WindowSums, read_window_sums

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

    def write(
        self,
        session: Session,
        now: datetime,
        sums: WindowSums | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> list[Standing]:
        """Write a leaderboard as of `now`, and the models' own scores; nothing where there is no model yet.

        Models without a value are listed unranked at the end, after them the ensembles, which are never ranked.
        `sums` are those of the windows as of `now`, where the caller has them; `meta` is stored with the leaderboard.

        Returns:
            The standings as they were written.

        Raises:
            RankingError: see `Ranking.ranked`.
        """
        sums = read_window_sums(session, self._aggregation, now) if sums is None else sums
        standings = self._ranking.ranked(self._ranking.standings(session, now, sums))
        if standings:
            entries = [standing.entry() for standing in standings]
            session.add(LeaderboardRow(created_at=now, entries_jsonb=entries, meta_jsonb=dict(meta or {})))
            session.flush()
            self._update_models(session, standings, self._scores_by_scope(sums), now)
        return standings

    def _update_models(
        self,
        session: Session,
        standings: Sequence[Standing],
        by_scope: Mapping[str, list[dict[str, Any]]],
        now: datetime,
    ) -> None:
        ids = [standing.model_id for standing in standings]
        values = {
            "ids": ids,
            "overalls": [encode_json(standing.entry()["score"]) for standing in standings],
            "by_scopes": [encode_json(by_scope.get(model_id, [])) for model_id in ids],
            "now": now,
        }
        lock_models(session, ids)
        session.connection().execute(_UPDATE_MODELS, values)

    def _scores_by_scope(self, sums: WindowSums) -> dict[str, list[dict[str, Any]]]:
        """For each model {scope_key, metrics: its windows over that scope alone, ranking}, in order of scope_key."""
        means: dict[str, dict[str, dict[str, float | None]]] = {}
        for name, parts in sums.items():
            for (model_id, scope_key), own in parts.items():
                mean = own.mean(self._aggregation.missing_score)
                if scope_key is not None and mean is not None:
                    windows = means.setdefault(model_id, {}).setdefault(scope_key, dict.fromkeys(sums))
                    windows[name] = mean
        return {
            model_id: [self._scope_score(scope_key, windows) for scope_key, windows in sorted(scopes.items())]
            for model_id, scopes in means.items()
        }

    def _scope_score(self, scope_key: str, windows: dict[str, float | None]) -> dict[str, Any]:
        key = self._aggregation.ranking_key
        ranking = {"key": key, "value": windows.get(key), "direction": self._aggregation.ranking_direction}
        return {"scope_key": scope_key, "metrics": windows, "ranking": ranking}
