"""Which models there are: kept in `models`, written only when something changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from model_runner_client.model_runners import DynamicSubclassModelRunner
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from coordinator_node.db.tables import ModelRow
from coordinator_node.entities.json_values import UnstorableError, storable, storable_text
from coordinator_node.services.model_shards import shard_of

PRESENT = "PRESENT"

_PRESENT = text("SELECT id FROM models WHERE presence = 'PRESENT'")
_LEAVE = text(
    """
    UPDATE models SET presence = 'AWAY', presence_since = :now, updated_at = :now
    FROM (SELECT id FROM models WHERE id = ANY(:ids) ORDER BY id FOR UPDATE) AS leaving WHERE models.id = leaving.id
    """
)

Running = Mapping[str, DynamicSubclassModelRunner]


class Presence:
    """What this worker has written of the models of its shards."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[Any, ...]] = {}
        self._shards: set[str] = set()

    def forget(self) -> None:
        """Write everything anew at the next occasion."""
        self._written.clear()
        self._shards.clear()

    def changes(self, running: Running, shards: set[str]) -> bool:
        """Whether `write` would have something to write."""
        facts = {model_id: _facts(runner) for model_id, runner in running.items()}
        return self._written != facts or self._shards != shards

    def write(self, session: Session, running: Running, shards: set[str], now: datetime) -> None:
        """Upsert models that came or changed in one statement, mark those of these shards that left in another."""
        # In order of id, as every stage that updates several models, so that two of them cannot wait for each other.
        changed = [
            runner for model_id, runner in sorted(running.items()) if self._written.get(model_id) != _facts(runner)
        ]
        if changed:
            session.connection().execute(_upsert([_row(runner, now) for runner in changed]))
        present = session.connection().execute(_PRESENT).scalars()
        left = [model_id for model_id in present if model_id not in running and shard_of(model_id) in shards]
        if left:
            session.connection().execute(_LEAVE, {"now": now, "ids": left})

    def written(self, running: Running, shards: set[str]) -> None:
        """Take note that what `write` wrote was committed."""
        self._shards = set(shards)
        self._written = {model_id: _facts(runner) for model_id, runner in running.items()}


def _facts(runner: DynamicSubclassModelRunner) -> tuple[Any, ...]:
    return (runner.deployment_id, runner.model_name, repr(runner.infos))


def _row(runner: DynamicSubclassModelRunner, now: datetime) -> dict[str, Any]:
    infos = _infos(runner)
    return {
        "id": runner.model_id,
        "name": str(infos.get("model_name") or runner.model_id),
        "deployment_identifier": storable_text(str(runner.deployment_id or "")),
        "player_id": str(infos.get("cruncher_id") or ""),
        "player_name": str(infos.get("cruncher_name") or ""),
        "meta_jsonb": infos,
        "scores_by_scope_jsonb": [],
        "created_at": now,
        "updated_at": now,
        "presence": PRESENT,
        "presence_since": now,
    }


def _infos(runner: DynamicSubclassModelRunner) -> dict[str, Any]:
    """What the orchestrator said of a model, as far as it can be stored: it holds what strangers wrote."""
    given = runner.infos if isinstance(runner.infos, dict) else {}
    infos: dict[str, Any] = {}
    for key, value in given.items():
        with contextlib.suppress(UnstorableError):
            infos[storable_text(str(key))] = (
                storable_text(value) if isinstance(value, str) else storable(value, "infos")
            )
    return infos


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
