"""Scores, the snapshots that sum them up, and what scoring remembers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, Index, Integer, UniqueConstraint
from sqlalchemy import text as sql
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, one_of, text, timestamp
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import SnapshotState
from coordinator_node.entities.times import utc_now


class ScoreRow(SQLModel, table=True):
    """What a prediction was worth.

    `generation` is 1 for the score that the live stage wrote, NULL for rows from elsewhere, and that of the rescore
    that wrote it otherwise; a prediction has one score of each, and the newest counts. `snapshot_state` says whether
    a snapshot counts it, `snapshot_id` which.
    """

    __tablename__ = "scores"
    __table_args__ = (
        UniqueConstraint("prediction_id", "generation", name="uq_scores_prediction_generation"),
        CheckConstraint(one_of("snapshot_state", SnapshotState), name="ck_scores_snapshot_state"),
        Index("ix_scores_scored_at", "scored_at"),
        Index("ix_scores_uncounted", "scored_at", postgresql_where=sql("snapshot_state = 'PENDING'")),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    prediction_id: str = Field(sa_column=text(references="predictions.id"))
    result_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    success: bool | None = Field(default=True, nullable=True)
    failed_reason: str | None = Field(default=None, sa_column=text(null=True))
    scored_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    generation: int | None = Field(default=None, nullable=True)
    snapshot_state: str = Field(
        default=SnapshotState.COUNTED.value, sa_column=text(default=SnapshotState.COUNTED.value)
    )
    snapshot_id: str | None = Field(default=None, sa_column=text(null=True, references="snapshots.id"))


class SnapshotRow(SQLModel, table=True):
    """One model over one period; `cycle_id` names the score cycle of this version that wrote it, NULL for others'.

    `superseded_by` is the generation of the rescore that replaced it: only snapshots without one count. One that a
    rescore wrote names in `origin_id` the live stage's snapshot of the same predictions.
    """

    __tablename__ = "snapshots"
    __table_args__ = (
        UniqueConstraint("cycle_id", "model_id", "period_start", name="uq_snapshots_cycle_model"),
        Index("ix_snapshots_model_id_period_end", "model_id", "period_end"),
        Index("ix_snapshots_period_end", "period_end"),
        Index("ix_snapshots_created_at", "created_at"),
        Index("ix_snapshots_content_hash", "content_hash"),
        Index(
            "ix_snapshots_scored",
            "model_id",
            "period_end",
            postgresql_where=sql("prediction_count > 0 AND superseded_by IS NULL"),
        ),
        Index("ix_snapshots_late", "created_at", postgresql_where=sql("meta_jsonb ? 'late'")),
        Index("ix_snapshots_cycle_id", "cycle_id", postgresql_where=sql("cycle_id IS NOT NULL")),
        Index("ix_snapshots_without_cycle", "period_end", postgresql_where=sql("cycle_id IS NULL")),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    model_id: str = Field(sa_column=text(references="models.id"))
    period_start: datetime = Field(sa_column=timestamp())
    period_end: datetime = Field(sa_column=timestamp())
    prediction_count: int = 0
    result_summary_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    content_hash: str | None = Field(default=None, sa_column=text(null=True))
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    cycle_id: str | None = Field(default=None, sa_column=text(null=True))
    origin_id: str | None = Field(default=None, sa_column=text(null=True, references="snapshots.id"))
    superseded_by: int | None = Field(default=None, nullable=True, foreign_key="rescores.generation")


class RescoreRow(SQLModel, table=True):
    """One period that was scored again, [period_start, period_end) of resolvable_at; what came of it is in `meta`."""

    __tablename__ = "rescores"

    generation: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    period_start: datetime = Field(sa_column=timestamp())
    period_end: datetime = Field(sa_column=timestamp())
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())


class ScoringStateRow(SQLModel, table=True):
    """What a scoring function that keeps state remembers of one model, as of the last of its scores that is stored."""

    __tablename__ = "scoring_states"

    model_id: str = Field(sa_column=text(key=True, references="models.id"))
    state_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    updated_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())


class EnsembleWeightsRow(SQLModel, table=True):
    """What each member weighs in an ensemble from `computed_at` on, {model_id: weight}; they sum to 1."""

    __tablename__ = "ensemble_weights"
    __table_args__ = (Index("ix_ensemble_weights_newest", "model_id", "computed_at"),)

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    model_id: str = Field(sa_column=text(references="models.id"))
    computed_at: datetime = Field(sa_column=timestamp())
    weights_jsonb: dict[str, float] | None = Field(default_factory=dict, sa_column=jsonb())
