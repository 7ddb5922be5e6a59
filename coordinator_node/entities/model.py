"""A model and the player who submitted it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator_node.entities.times import utc_now


@dataclass
class Model:
    """One submitted model. `overall_score` is None until it is on a leaderboard."""

    id: str
    name: str
    player_id: str
    player_name: str
    deployment_identifier: str
    overall_score: dict[str, Any] | None = None
    scores_by_scope: list[dict[str, Any]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)
