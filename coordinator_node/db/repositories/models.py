"""Models, for operators' own code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlmodel import Session, col, select

from coordinator_node.db.repositories.statements import committing, fresh, upsert
from coordinator_node.db.repositories.values import storable
from coordinator_node.db.tables import ModelRow
from coordinator_node.entities.model import Model
from coordinator_node.entities.times import as_utc


class DBModelRepository:
    """Reads and writes models; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def fetch_all(self) -> dict[str, Model]:
        """All models by id."""
        return {row.id: _entity(row) for row in fresh(self._session, select(ModelRow).order_by(col(ModelRow.id)))}

    def fetch_by_ids(self, ids: list[str]) -> dict[str, Model]:
        """Those of the named models that exist, by id."""
        query = select(ModelRow).where(col(ModelRow.id).in_(ids)).order_by(col(ModelRow.id))
        return {row.id: _entity(row) for row in fresh(self._session, query)}

    def fetch(self, model_id: str) -> Model | None:
        """One model; None where there is none of that id."""
        return self.fetch_by_ids([model_id]).get(model_id)

    def save(self, model: Model) -> None:
        """Insert a model, or update the one of that id."""
        self.save_all([model])

    def save_all(self, models: Iterable[Model]) -> None:
        """Insert or update models by id, all or none. An existing row keeps its created_at and what no entity holds.

        Raises:
            ValueError: a model holds what the database cannot, such as NaN; the message names it.
        """
        rows = [_values(model) for model in models]
        with committing(self._session):
            upsert(self._session, ModelRow, rows, only_when_new=("created_at",))


def _entity(row: ModelRow) -> Model:
    return Model(
        id=row.id,
        name=row.name,
        player_id=row.player_id,
        player_name=row.player_name,
        deployment_identifier=row.deployment_identifier,
        overall_score=row.overall_score_jsonb,
        scores_by_scope=row.scores_by_scope_jsonb or [],
        meta=row.meta_jsonb or {},
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _values(model: Model) -> dict[str, Any]:
    name = f"model {model.id!r}"
    return {
        "id": model.id,
        "name": model.name,
        "player_id": model.player_id,
        "player_name": model.player_name,
        "deployment_identifier": model.deployment_identifier,
        "overall_score_jsonb": storable(name, "overall_score", model.overall_score),
        "scores_by_scope_jsonb": storable(name, "scores_by_scope", model.scores_by_scope),
        "meta_jsonb": storable(name, "meta", model.meta),
        "created_at": as_utc(model.created_at),
        "updated_at": as_utc(model.updated_at),
    }
