"""What the Merkle log adds to the cycles and nodes of 0.1.84: commitments, and what each snapshot counts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, UniqueConstraint
from sqlalchemy import text as sql
from sqlmodel import Field, SQLModel

from coordinator_node.db.tables.columns import jsonb, text, timestamp
from coordinator_node.entities.ids import new_id


class MerkleCommitmentRow(SQLModel, table=True):
    """A batch of predictions under one root, written with them, before their outcomes.

    `leaves` are their hashes of 32 bytes, one behind the other; a prediction's `commitment_index` is its place among
    them. The leader that chains it sets `position`, `previous_root` and `chained_root`, together, once.
    """

    __tablename__ = "merkle_commitments"
    __table_args__ = (
        UniqueConstraint("position", name="uq_merkle_commitments_position"),
        Index("ix_merkle_commitments_unchained", "committed_at", "id", postgresql_where=sql("position IS NULL")),
    )

    id: str = Field(default_factory=new_id, sa_column=text(key=True))
    root: str = Field(sa_column=text())
    leaves: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    prediction_count: int = Field(sa_column=Column(Integer, nullable=False))
    committed_at: datetime = Field(sa_column=timestamp())
    position: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    previous_root: str | None = Field(default=None, sa_column=text(null=True))
    chained_root: str | None = Field(default=None, sa_column=text(null=True))


class MerkleCountedRow(SQLModel, table=True):
    """The predictions that a snapshot counts, in the order of its tree.

    `leaves` holds for each of them two hashes of 32 bytes: its own, and that of its outcome.
    """

    __tablename__ = "merkle_counted"

    snapshot_id: str = Field(sa_column=text(key=True, references="snapshots.id"))
    predictions_root: str = Field(sa_column=text())
    prediction_ids_jsonb: list[str] | None = Field(default_factory=list, sa_column=jsonb())
    leaves: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
