"""Schedules, their due moments, what the models were given and what they said."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, UniqueConstraint
from sqlalchemy import text as sql
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, one_of, text, timestamp
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import InputStatus, PredictionStatus, SlotStatus
from coordinator_node.entities.times import utc_now


class ScheduledPredictionConfigRow(SQLModel, table=True):
    """A schedule. `activated_at` is where its grid of slots begins; NULL for one that this version never ran."""

    __tablename__ = "scheduled_prediction_configs"
    __table_args__ = (
        Index("ix_scheduled_prediction_configs_scope_key", "scope_key"),
        Index("ix_scheduled_prediction_configs_active", "active"),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    scope_key: str = Field(sa_column=text())
    scope_template_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    schedule_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    active: bool = True
    order: int = 0
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    activated_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))


class InputRow(SQLModel, table=True):
    """What the models were given; `actuals_jsonb` is the ground truth once it is known.

    An input of this version belongs to one slot, whose scope is `scope_jsonb`. One without it (older, or made by hand)
    may serve several scopes: its actuals are kept by `scope_key@resolvable_at`.
    """

    __tablename__ = "inputs"
    __table_args__ = (
        CheckConstraint(one_of("status", InputStatus), name="ck_inputs_status"),
        Index("ix_inputs_received_at", "received_at"),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    raw_data_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    received_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    status: str = Field(default=InputStatus.RECEIVED.value, sa_column=text(default=InputStatus.RESOLVED.value))
    actuals_jsonb: dict[str, Any] | None = Field(default=None, sa_column=jsonb())
    scope_jsonb: dict[str, Any] | None = Field(default=None, sa_column=jsonb())


class PredictionSlotRow(SQLModel, table=True):
    """One due moment of one schedule: CALLED with its input and deadline, or MISSED with the reason.

    Or one feature row of a tournament round, always CALLED: `round_id` and `feature_index` (from 0) instead of a
    schedule, and no deadline, because each of its calls has one of its own. The round's `slot_calls` are those of its
    first slot, and stand for all of them.
    """

    __tablename__ = "prediction_slots"
    __table_args__ = (
        UniqueConstraint("prediction_config_id", "slot_at", name="uq_prediction_slots_moment"),
        CheckConstraint(one_of("status", SlotStatus), name="ck_prediction_slots_status"),
        CheckConstraint(
            "(status = 'MISSED' AND reason IS NOT NULL)"
            " OR (status = 'CALLED' AND input_id IS NOT NULL AND (deadline_at IS NOT NULL OR round_id IS NOT NULL))",
            name="ck_prediction_slots_complete",
        ),
        UniqueConstraint("round_id", "feature_index", name="uq_prediction_slots_round"),
        CheckConstraint(
            "num_nonnulls(prediction_config_id, round_id) = 1 AND num_nonnulls(round_id, feature_index) <> 1",
            name="ck_prediction_slots_owner",
        ),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    prediction_config_id: str | None = Field(
        default=None, sa_column=text(null=True, references="scheduled_prediction_configs.id")
    )
    slot_at: datetime = Field(sa_column=timestamp())
    status: str = Field(sa_column=text())
    reason: str | None = Field(default=None, sa_column=text(null=True))
    input_id: str | None = Field(default=None, sa_column=text(null=True, references="inputs.id"))
    deadline_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    round_id: str | None = Field(default=None, sa_column=text(null=True))
    feature_index: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))


class SlotCallRow(SQLModel, table=True):
    """One shard's part of a slot: which of its models are to be asked, written before anybody asks them.

    `lease_name` is the shard, `epoch` that of the holder who claimed it, 0 while nobody has; `called_at` is when. While
    `closed_at` is NULL some models may have no prediction row yet. Should nobody work on it any more, whoever holds the
    shard writes those rows as FAILED "interrupted".
    """

    __tablename__ = "slot_calls"
    __table_args__ = (Index("ix_slot_calls_open", "lease_name", postgresql_where=sql("closed_at IS NULL")),)

    slot_id: str = Field(sa_column=text(key=True, references="prediction_slots.id"))
    lease_name: str = Field(sa_column=text(key=True))
    epoch: int = Field(sa_column=Column(BigInteger, nullable=False))
    model_ids_jsonb: list[str] | None = Field(default_factory=list, sa_column=jsonb())
    called_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    closed_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))


class PredictionRow(SQLModel, table=True):
    """What one model said in one slot.

    `slot_id` is NULL for rows that came from elsewhere. `attempts` and `next_attempt_at` belong to the score stage:
    how often its ground truth was looked for in vain, and when to look again. `snapshot_id` is the snapshot that counts
    it among the failed or absent ones; NULL while none does, and for a prediction that is scored: its score says which.
    `commitment_id` and `commitment_index` say where it was committed before its outcome; NULL for one that was not.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        UniqueConstraint("slot_id", "model_id", name="uq_predictions_slot_model"),
        CheckConstraint(one_of("status", PredictionStatus), name="ck_predictions_status"),
        Index("ix_predictions_input_id", "input_id"),
        Index("ix_predictions_performed_at", "performed_at"),
        Index("ix_predictions_resolvable_at", "resolvable_at"),
        Index("ix_predictions_model_resolvable", "model_id", "resolvable_at"),
        Index(
            "ix_predictions_pending_by_model",
            "model_id",
            "resolvable_at",
            postgresql_where=sql("status = 'PENDING'"),
        ),
        Index(
            "ix_predictions_uncounted_misses",
            "resolvable_at",
            postgresql_where=sql("status IN ('FAILED', 'ABSENT') AND slot_id IS NOT NULL AND snapshot_id IS NULL"),
        ),
        Index(
            "ix_predictions_claim",
            sql("COALESCE(next_attempt_at, resolvable_at)"),
            postgresql_where=sql("status = 'PENDING'"),
        ),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    input_id: str = Field(sa_column=text(references="inputs.id"))
    model_id: str = Field(sa_column=text(references="models.id"))
    prediction_config_id: str | None = Field(
        default=None, sa_column=text(null=True, references="scheduled_prediction_configs.id")
    )
    scope_key: str = Field(sa_column=text())
    scope_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    status: str = Field(default=PredictionStatus.PENDING.value, sa_column=text())
    exec_time_ms: float = 0.0
    inference_output_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    performed_at: datetime = Field(sa_column=timestamp())
    resolvable_at: datetime = Field(sa_column=timestamp())
    slot_id: str | None = Field(default=None, sa_column=text(null=True, references="prediction_slots.id"))
    failed_reason: str | None = Field(default=None, sa_column=text(null=True))
    answered_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    next_attempt_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    snapshot_id: str | None = Field(default=None, sa_column=text(null=True, references="snapshots.id"))
    commitment_id: str | None = Field(default=None, sa_column=text(null=True, references="merkle_commitments.id"))
    commitment_index: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))
