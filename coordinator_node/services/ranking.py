"""The one ranking: what the leaderboard shows and what a checkpoint pays by.

A window of h hours as of a moment t is the mean of the snapshots' value_field weighted by their prediction_count, over
the snapshots with period_end in (t - h, t]; null where there is none. Sums are exact and rounded once, so that the
same snapshots give the same number whatever the database's plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import Aggregation, CrunchConfig
from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.entities.errors import RAISED_BY_CALLABLES, ConfigurationError
from coordinator_node.entities.json_values import reason_of
from coordinator_node.extensions.callable_resolver import configured_callable
from coordinator_node.metrics.values import as_number
from coordinator_node.services.window_sums import Sums, WindowSums, hours_before, read_window_sums

_LATEST = text(
    """
    SELECT models.id, models.name, models.player_id, models.player_name, models.first_scored_at,
           latest.result_summary_jsonb
    FROM models LEFT JOIN LATERAL (
        SELECT result_summary_jsonb FROM snapshots
        WHERE model_id = models.id AND period_end > :after AND period_end <= :as_of AND prediction_count > 0
              AND superseded_by IS NULL
        ORDER BY period_end DESC, created_at DESC, id DESC LIMIT 1
    ) AS latest ON true
    ORDER BY models.id
    """
)


# Fields of ScoreResult that no model could be ranked by: everybody would stay unranked and unpaid.
_NO_NUMBERS = ("success", "failed_reason")


class RankingError(RuntimeError):
    """LEADERBOARD_RANKER raised, or returned what is no order of the models; nothing was written."""


@dataclass(frozen=True)
class Standing:
    """Where one model stands.

    `windows` are its means. `summary` is its latest snapshot's; {} where that is older than the metrics' window, for
    whoever has gone must not lead by what was true when it went. `value` is what it is ranked by; None leaves it
    unranked, `rank` being None too. `prediction_count` is how many scored predictions there are in the window that
    ranks (the longest one, where something else does); None where it was not counted. `cruncher_id` tells players of
    one name apart.
    """

    model_id: str
    model_name: str
    cruncher_name: str
    first_scored_at: datetime | None
    windows: dict[str, float | None]
    summary: dict[str, Any]
    key: str
    direction: str
    value: float | None
    rank: int | None = None
    prediction_count: int | None = None
    cruncher_id: str = ""

    @property
    def metrics(self) -> dict[str, float | None]:
        """The windows, and the numbers of the latest snapshot; a window's name goes before a summary's."""
        numbers = {name: as_number(value) for name, value in self.summary.items() if value is None or _numeric(value)}
        return {**self.windows, **{name: number for name, number in numbers.items() if name not in self.windows}}

    def entry(self) -> dict[str, Any]:
        """The model's entry in `leaderboards.entries_jsonb`."""
        return {
            "model_id": self.model_id,
            "rank": self.rank,
            "model_name": self.model_name,
            "cruncher_name": self.cruncher_name,
            "score": {
                "metrics": self.metrics,
                "ranking": {"key": self.key, "value": self.value, "direction": self.direction},
            },
        }


class Ranking:
    """Reads how all models stand, and ranks them, by one config.

    Raises:
        ConfigurationError: when made: an unknown ranking_key, or a LEADERBOARD_RANKER that cannot be imported.
    """

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._aggregation = config.aggregation
        self._metrics_hours = config.metrics_window_hours
        check_ranking_key(config)
        self._ranker = configured_callable(settings, "leaderboard_ranker")

    def standings(self, session: Session, as_of: datetime, sums: WindowSums | None = None) -> list[Standing]:
        """Every model, ensembles too, as of a moment; not ranked yet, in order of id.

        `sums` are those of the windows as of that moment, where the caller has them.
        """
        sums = read_window_sums(session, self._aggregation, as_of) if sums is None else sums
        windows = means_of(sums, self._aggregation)
        counted = sums.get(counting_window(self._aggregation) or "", {})
        key, direction = self._aggregation.ranking_key, self._aggregation.ranking_direction
        standings: list[Standing] = []
        span = {"after": hours_before(as_of, self._metrics_hours), "as_of": as_of}
        for row in session.connection().execute(_LATEST, span):
            summary = row.result_summary_jsonb if isinstance(row.result_summary_jsonb, dict) else {}
            own = {name: windows.get((row.id, name)) for name in self._aggregation.windows}
            standings.append(
                Standing(
                    model_id=row.id,
                    model_name=row.name,
                    cruncher_name=row.player_name,
                    first_scored_at=row.first_scored_at,
                    windows=own,
                    summary=summary,
                    key=key,
                    direction=direction,
                    value=own[key] if key in own else as_number(summary.get(key)),
                    prediction_count=counted.get((row.id, None), Sums()).weight,
                    cruncher_id=row.player_id,
                )
            )
        return standings

    def ranked(self, standings: Iterable[Standing]) -> list[Standing]:
        """The standings in rank order, then those that are unranked in order of id, then the ensembles.

        Ranks are 1, 2, 3… over the real models that have a value, and `min_predictions` where that is known: by the
        value in the configured direction, ties by the earlier first score, then by id. LEADERBOARD_RANKER, which gets
        these as entries in that order, may return another; a model that it leaves out is unranked.

        Raises:
            RankingError: LEADERBOARD_RANKER raised, or returned an unknown model or one twice.
        """
        given = sorted(standings, key=lambda standing: standing.model_id)
        ensembles = [standing for standing in given if is_ensemble_model(standing.model_id)]
        real = [standing for standing in given if not is_ensemble_model(standing.model_id)]
        order = sorted((standing for standing in real if self._may_rank(standing)), key=_order)
        if self._ranker:
            order = self._reordered(order, self._ranker)
        ranked = [replace(standing, rank=rank) for rank, standing in enumerate(order, 1)]
        placed = {standing.model_id for standing in ranked}
        return [*ranked, *(standing for standing in real if standing.model_id not in placed), *ensembles]

    def _may_rank(self, standing: Standing) -> bool:
        count = standing.prediction_count
        return standing.value is not None and (count is None or count >= self._aggregation.min_predictions)

    def _reordered(self, order: Sequence[Standing], ranker: Callable[..., Any]) -> list[Standing]:
        by_id = {standing.model_id: standing for standing in order}
        try:
            returned = ranker([standing.entry() for standing in order], self._aggregation)
            ids = [entry["model_id"] for entry in returned]
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything; money follows this order
            raise RankingError(f"LEADERBOARD_RANKER failed: {reason_of(error)}") from error
        wrong = [model_id for model_id in ids if model_id not in by_id]
        if wrong or len(set(ids)) != len(ids):
            fault = f"the unknown model {wrong[0]!r}" if wrong else "a model twice"
            raise RankingError(f"LEADERBOARD_RANKER returned {fault}; it must return the entries it gets, in order")
        return [by_id[model_id] for model_id in ids]


def check_ranking_key(config: CrunchConfig) -> None:
    """Refuse a ranking_key that no leaderboard entry would have.

    Raises:
        ConfigurationError: it is none of the windows, the metrics and the fields of score_type that may be numbers; the
            message lists them.
    """
    key = config.aggregation.ranking_key
    fields = [name for name in config.score_type.model_fields if name not in _NO_NUMBERS]
    known = dict.fromkeys([*config.aggregation.windows, *config.metrics, *fields])
    if key not in known:
        raise ConfigurationError(
            f"aggregation.ranking_key {key!r} is unknown; there are {', '.join(known)}; what only an aggregator of your"
            " own gives must be declared as a field of score_type"
        )


def window_means(session: Session, aggregation: Aggregation, as_of: datetime) -> dict[tuple[str, str], float]:
    """The windows of all models as of a moment: {(model id, window): mean}; one that is empty is left out."""
    return means_of(read_window_sums(session, aggregation, as_of), aggregation)


def means_of(sums: WindowSums, aggregation: Aggregation) -> dict[tuple[str, str], float]:
    """The models' means of these windows, likewise."""
    return {
        (model_id, name): mean
        for name, parts in sums.items()
        for (model_id, scope_key), own in parts.items()
        if scope_key is None and (mean := own.mean(aggregation.missing_score)) is not None
    }


def counting_window(aggregation: Aggregation) -> str | None:
    """The window that `min_predictions` is counted in: the one that ranks, else the longest; None without windows."""
    if aggregation.ranking_key in aggregation.windows:
        return aggregation.ranking_key
    return max(aggregation.windows, key=lambda name: aggregation.windows[name].hours, default=None)


def _order(standing: Standing) -> tuple[float, datetime, str]:
    value = standing.value or 0.0
    first = standing.first_scored_at or datetime.max.replace(tzinfo=UTC)
    return (value if standing.direction == "asc" else -value, first, standing.model_id)


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
