"""Models, and the leaderboards they stand on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, text, timestamp
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.times import utc_now


class ModelRow(SQLModel, table=True):
    """A submitted model.

    `presence` says whether the orchestrator has it now (PRESENT, AWAY; NULL: never seen by this version), since
    `presence_since`. `first_scored_at` breaks ties in a ranking.
    """

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint("presence IN ('PRESENT', 'AWAY')", name="ck_models_presence"),
        Index("ix_models_player_id", "player_id"),
        Index("ix_models_created_at", "created_at"),
        Index("ix_models_updated_at", "updated_at"),
    )

    id: str = Field(sa_column=text(key=True))
    name: str = Field(sa_column=text())
    deployment_identifier: str = Field(sa_column=text())
    player_id: str = Field(sa_column=text())
    player_name: str = Field(sa_column=text())
    overall_score_jsonb: dict[str, Any] | None = Field(default=None, sa_column=jsonb())
    scores_by_scope_jsonb: list[dict[str, Any]] | None = Field(default_factory=list, sa_column=jsonb())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    updated_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    presence: str | None = Field(default=None, sa_column=text(null=True))
    presence_since: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    first_scored_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))


class LeaderboardRow(SQLModel, table=True):
    """All models in rank order at one moment."""

    __tablename__ = "leaderboards"
    __table_args__ = (Index("ix_leaderboards_created_at", "created_at"),)

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    entries_jsonb: list[dict[str, Any]] | None = Field(default_factory=list, sa_column=jsonb())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
