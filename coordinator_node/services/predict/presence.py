"""Which models there are: kept in `models`, written only when something changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from model_runner_client.model_runners import DynamicSubclassModelRunner
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from coordinator_node.db.tables import ModelRow

PRESENT = "PRESENT"
AWAY = "AWAY"

# A model that has been away for so long is taken to be withdrawn: no more ABSENT rows are written for it.
WITHDRAWN_AFTER = timedelta(hours=24)

_KNOWN = text("SELECT id, presence, presence_since FROM models WHERE presence IS NOT NULL")
_LEAVE = text(
    """
    UPDATE models SET presence = 'AWAY', presence_since = :now, updated_at = :now
    FROM (SELECT id FROM models WHERE id = ANY(:ids) ORDER BY id FOR UPDATE) AS leaving WHERE models.id = leaving.id
    """
)


class Presence:
    """What the table says of the models, in memory: who is present, who is away since when."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[Any, ...]] = {}
        self._away_since: dict[str, datetime | None] = {}

    def load(self, session: Session) -> None:
        """Read it anew, as after a change of caller."""
        self._written.clear()
        rows = session.connection().execute(_KNOWN).all()
        self._away_since = {row.id: row.presence_since if row.presence == AWAY else None for row in rows}

    def changes(self, running: Mapping[str, DynamicSubclassModelRunner]) -> bool:
        """Whether `write` would have something to write."""
        return any(self._written.get(i) != _written(r) for i, r in running.items()) or bool(self._leaving(running))

    def write(self, session: Session, running: Mapping[str, DynamicSubclassModelRunner], now: datetime) -> None:
        """Upsert models that came or changed in one statement, mark those that left as away in another."""
        # In order of id, as every stage that updates several models, so that two of them cannot wait for each other.
        changed = [r for model_id, r in sorted(running.items()) if self._written.get(model_id) != _written(r)]
        if changed:
            session.connection().execute(_upsert([_row(r, now) for r in changed]))
        leaving = self._leaving(running)
        if leaving:
            session.connection().execute(_LEAVE, {"now": now, "ids": leaving})

    def written(self, running: Mapping[str, DynamicSubclassModelRunner], now: datetime) -> None:
        """Take note that what `write` wrote was committed."""
        for model_id in self._leaving(running):
            self._away_since[model_id] = now
            self._written.pop(model_id, None)
        for model_id, runner in running.items():
            self._written[model_id] = _written(runner)
            self._away_since[model_id] = None

    def absent(self, asked: set[str], now: datetime) -> set[str]:
        """The models that are known, not withdrawn, and not among those asked."""
        return {
            model_id
            for model_id, since in self._away_since.items()
            if model_id not in asked and (since is None or now - since < WITHDRAWN_AFTER)
        }

    def _leaving(self, running: Mapping[str, DynamicSubclassModelRunner]) -> list[str]:
        return sorted(i for i, since in self._away_since.items() if since is None and i not in running)


def _written(runner: DynamicSubclassModelRunner) -> tuple[Any, ...]:
    return (runner.deployment_id, runner.model_name, repr(runner.infos))


def _row(runner: DynamicSubclassModelRunner, now: datetime) -> dict[str, Any]:
    infos = {str(key): value for key, value in (runner.infos or {}).items()}
    return {
        "id": runner.model_id,
        "name": str(infos.get("model_name") or runner.model_id),
        "deployment_identifier": str(runner.deployment_id or ""),
        "player_id": str(infos.get("cruncher_id") or ""),
        "player_name": str(infos.get("cruncher_name") or ""),
        "meta_jsonb": infos,
        "scores_by_scope_jsonb": [],
        "created_at": now,
        "updated_at": now,
        "presence": PRESENT,
        "presence_since": now,
    }


def _upsert(rows: list[dict[str, Any]]) -> Any:
    statement = insert(ModelRow).values(rows)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["id"],
        set_={
            "name": new.name,
            "deployment_identifier": new.deployment_identifier,
            "player_id": new.player_id,
            "player_name": new.player_name,
            "meta_jsonb": text("COALESCE(models.meta_jsonb, '{}'::jsonb) || excluded.meta_jsonb"),
            "updated_at": new.updated_at,
            "presence": new.presence,
            "presence_since": text(
                "CASE WHEN models.presence = 'PRESENT' THEN models.presence_since ELSE excluded.presence_since END"
            ),
        },
    )
