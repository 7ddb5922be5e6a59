"""Checkpoints, and the Merkle log that proves what they were made of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import TSTZRANGE, ExcludeConstraint, Range
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, one_of, text, timestamp
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import CheckpointStatus
from coordinator_node.entities.times import utc_now


class CheckpointRow(SQLModel, table=True):
    """One period's emission. `period` is the half-open range of ours, which may not overlap; NULL for older rows."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint(one_of("status", CheckpointStatus), name="ck_checkpoints_status"),
        ExcludeConstraint(("period", "&&"), name="ex_checkpoints_period", using="gist"),
        Index("ix_checkpoints_period_start", "period_start"),
        Index("ix_checkpoints_period_end", "period_end"),
        Index("ix_checkpoints_status", "status"),
        Index("ix_checkpoints_created_at", "created_at"),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    period_start: datetime = Field(sa_column=timestamp())
    period_end: datetime = Field(sa_column=timestamp())
    status: str = Field(default=CheckpointStatus.PENDING.value, sa_column=text())
    entries_jsonb: list[dict[str, Any]] | None = Field(default_factory=list, sa_column=jsonb())
    meta_jsonb: dict[str, Any] | None = Field(default_factory=dict, sa_column=jsonb())
    merkle_root: str | None = Field(default=None, sa_column=text(null=True))
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    tx_hash: str | None = Field(default=None, sa_column=text(null=True))
    submitted_at: datetime | None = Field(default=None, sa_column=timestamp(null=True))
    period: Range[datetime] | None = Field(default=None, sa_column=Column(TSTZRANGE, nullable=True))


class CheckpointMoveRow(SQLModel, table=True):
    """One move of a checkpoint's status. A trigger writes it, whoever moves; another refuses that it is ever changed.

    `moved_by` is the API's client, or the database session of who moved it otherwise. `tx_hash` is the checkpoint's at
    that moment, `request_id` the API's; both are NULL where there is none.
    """

    __tablename__ = "checkpoint_moves"
    __table_args__ = (Index("ix_checkpoint_moves_checkpoint_id", "checkpoint_id"),)

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    checkpoint_id: str = Field(sa_column=text(references="checkpoints.id"))
    moved_at: datetime = Field(sa_column=timestamp())
    moved_by: str = Field(sa_column=text())
    from_status: str = Field(sa_column=text())
    to_status: str = Field(sa_column=text())
    tx_hash: str | None = Field(default=None, sa_column=text(null=True))
    request_id: str | None = Field(default=None, sa_column=text(null=True))


class MerkleCycleRow(SQLModel, table=True):
    """One score cycle's snapshots under one root, chained to the cycle before.

    `position` numbers the cycles of this version from 1 on; NULL marks one of 0.1.84, which no chain of ours names.
    `commitments_root` is the commitments' newest chained root at that time. `checkpoint_id` is the checkpoint whose
    root covers it; NULL while none does.
    """

    __tablename__ = "merkle_cycles"
    __table_args__ = (
        UniqueConstraint("position", name="uq_merkle_cycles_position"),
        Index("ix_merkle_cycles_checkpoint_id", "checkpoint_id", "position"),
        Index("ix_merkle_cycles_previous_cycle_id", "previous_cycle_id"),
        Index("ix_merkle_cycles_chained_root", "chained_root"),
        Index("ix_merkle_cycles_created_at", "created_at"),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    previous_cycle_id: str | None = Field(default=None, sa_column=text(null=True))
    previous_cycle_root: str | None = Field(default=None, sa_column=text(null=True))
    snapshots_root: str = Field(sa_column=text())
    chained_root: str = Field(sa_column=text())
    snapshot_count: int = 0
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
    position: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    prediction_count: int | None = Field(default=None, nullable=True)
    commitments_root: str | None = Field(default=None, sa_column=text(null=True))
    checkpoint_id: str | None = Field(default=None, sa_column=text(null=True, references="checkpoints.id"))


class MerkleNodeRow(SQLModel, table=True):
    """One node of a cycle's or a checkpoint's tree; a leaf names its snapshot."""

    __tablename__ = "merkle_nodes"
    __table_args__ = (
        Index("ix_merkle_nodes_checkpoint_id", "checkpoint_id"),
        Index("ix_merkle_nodes_cycle_id", "cycle_id"),
        Index("ix_merkle_nodes_snapshot_id", "snapshot_id"),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    checkpoint_id: str | None = Field(default=None, sa_column=text(null=True, references="checkpoints.id"))
    cycle_id: str | None = Field(default=None, sa_column=text(null=True, references="merkle_cycles.id"))
    level: int
    position: int
    hash: str = Field(sa_column=text())
    left_child_id: str | None = Field(default=None, sa_column=text(null=True))
    right_child_id: str | None = Field(default=None, sa_column=text(null=True))
    snapshot_id: str | None = Field(default=None, sa_column=text(null=True, references="snapshots.id"))
    snapshot_content_hash: str | None = Field(default=None, sa_column=text(null=True))
    created_at: datetime = Field(default_factory=utc_now, sa_column=timestamp())
