"""How much the models differ from one another, and how the ensembles fared."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from coordinator_node.api.answers import UNCHANGED, TaggedRoute
from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context
from coordinator_node.api.errors import not_found
from coordinator_node.api.pages import PAGED, Paging
from coordinator_node.api.parameters import Limit, SinceUntil, Text
from coordinator_node.api.points import numbers
from coordinator_node.db.reports.diversity import MEASURES, DiversityPlace, model_measures, most_diverse, newest_rank
from coordinator_node.db.reports.snapshots import SnapshotPlace, ensemble_snapshots
from coordinator_node.entities.ensemble import ensemble_model_id, ensemble_name_of
from coordinator_node.metrics.advice import diversity_score, guidance
from coordinator_node.schemas.report.standings import DiversityEntry, EnsembleSnapshot, ModelDiversity, reserved
from coordinator_node.schemas.report.wire import Problem, object_or_empty

router = APIRouter(
    prefix="/reports", tags=["diversity"], dependencies=[PUBLIC], route_class=TaggedRoute, responses=UNCHANGED
)

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such model."}}

EnsembleName = Annotated[Text | None, Query(description="As the config names it; all when left out.")]

_RESERVED = reserved(EnsembleSnapshot)


@router.get("/models/{model_id}/diversity", responses=UNKNOWN)
def model_diversity(context: Context, model_id: Annotated[Text, Path(description="A model's id.")]) -> ModelDiversity:
    """How much one model differs from the others, by its latest snapshot, and what its owner may do about it."""
    with context.database.reading() as connection:
        row = model_measures(connection, model_id)
        if row is None:
            raise not_found(f"model {model_id}")
        rank = newest_rank(connection, model_id)
    metrics = {name: row[name] for name in MEASURES}
    return ModelDiversity(
        model_id=model_id,
        rank=rank,
        diversity_score=diversity_score(metrics["model_correlation"]),
        metrics=metrics,
        guidance=guidance(metrics) if row["period_end"] else ["There is no snapshot of this model yet."],
        snapshot_period_end=row["period_end"],
    )


@router.get("/diversity", responses=PAGED)
def diversity(context: Context, pages: Paging, limit: Limit = 50) -> list[DiversityEntry]:
    """The models that have a snapshot, by their latest one, most diverse first; unknown diversity comes last."""
    after = pages.after(DiversityPlace)
    with context.database.reading() as connection:
        rows = most_diverse(connection, limit + 1, after)
    return [DiversityEntry(**row) for row in pages.page(rows, limit, DiversityPlace.of)]


@router.get("/ensemble/history", responses=PAGED)
def ensemble_history(
    context: Context, during: SinceUntil, pages: Paging, ensemble_name: EnsembleName = None, limit: Limit = 100
) -> list[EnsembleSnapshot]:
    """The newest `limit` snapshots of the ensembles, oldest first; `since` and `until` bound the end of their period.

    The pages go back in time.
    """
    after = pages.after(SnapshotPlace)
    model_id = None if ensemble_name is None else ensemble_model_id(ensemble_name)
    with context.database.reading() as connection:
        found = ensemble_snapshots(
            connection, model_id=model_id, since=during.start, until=during.end, limit=limit + 1, after=after
        )
    return [_ensemble_snapshot(row) for row in pages.page(found, limit, SnapshotPlace.of)[::-1]]


def _ensemble_snapshot(row: dict[str, Any]) -> EnsembleSnapshot:
    summary = numbers(object_or_empty(row["result_summary"]))
    return EnsembleSnapshot(
        **{name: value for name, value in summary.items() if name not in _RESERVED},
        ensemble_name=ensemble_name_of(row["model_id"]),
        model_id=row["model_id"],
        period_start=row["period_start"],
        period_end=row["period_end"],
        prediction_count=row["prediction_count"],
    )
