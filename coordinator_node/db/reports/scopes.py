"""What is predicted under each scope_key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from coordinator_node.crunch_config import CrunchConfig

# The last of equal keys is taken: active ones before those that are not.
_SCHEDULES = text(
    """
    SELECT scope_key, scope_template_jsonb, schedule_jsonb -> 'resolve_horizon_seconds' AS horizon
    FROM scheduled_prediction_configs ORDER BY active, activated_at NULLS FIRST, id
    """
)


def known_scopes(connection: Connection, config: CrunchConfig) -> dict[str, dict[str, Any]]:
    """By scope_key what is predicted, with `resolve_horizon_seconds`, as the predict stage completes it."""
    defaults = config.scope.model_dump(mode="json")
    scopes = {
        schedule.scope_key: {**defaults, "resolve_horizon_seconds": schedule.resolve_horizon_seconds, **schedule.scope}
        for schedule in config.scheduled_predictions
    }
    for row in connection.execute(_SCHEDULES):
        own = row.scope_template_jsonb if isinstance(row.scope_template_jsonb, dict) else {}
        scopes[row.scope_key] = {**defaults, "resolve_horizon_seconds": row.horizon, **own}
    return scopes
