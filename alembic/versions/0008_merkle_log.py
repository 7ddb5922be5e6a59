"""The Merkle log: predictions committed before their outcome, what each snapshot counts, and whose cycles are ours."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "merkle_commitments",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("root", sa.String(), nullable=False),
        sa.Column("leaves", sa.LargeBinary(), nullable=False),
        sa.Column("prediction_count", sa.Integer(), nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("position", sa.BigInteger()),
        sa.Column("previous_root", sa.String()),
        sa.Column("chained_root", sa.String()),
        sa.UniqueConstraint("position", name="uq_merkle_commitments_position"),
    )
    op.create_index(
        "ix_merkle_commitments_unchained",
        "merkle_commitments",
        ["committed_at", "id"],
        postgresql_where=sa.text("position IS NULL"),
    )
    op.add_column("predictions", sa.Column("commitment_id", sa.String()))
    op.add_column("predictions", sa.Column("commitment_index", sa.Integer()))
    op.create_foreign_key(
        "predictions_commitment_id_fkey", "predictions", "merkle_commitments", ["commitment_id"], ["id"]
    )
    op.create_table(
        "merkle_counted",
        sa.Column("snapshot_id", sa.String(), sa.ForeignKey("snapshots.id"), primary_key=True),
        sa.Column("predictions_root", sa.String(), nullable=False),
        sa.Column("prediction_ids_jsonb", JSONB()),
        sa.Column("leaves", sa.LargeBinary(), nullable=False),
    )
    op.add_column("merkle_cycles", sa.Column("position", sa.BigInteger()))
    op.add_column("merkle_cycles", sa.Column("prediction_count", sa.Integer()))
    op.add_column("merkle_cycles", sa.Column("commitments_root", sa.String()))
    op.add_column("merkle_cycles", sa.Column("checkpoint_id", sa.String()))
    op.create_unique_constraint("uq_merkle_cycles_position", "merkle_cycles", ["position"])
    op.create_foreign_key("merkle_cycles_checkpoint_id_fkey", "merkle_cycles", "checkpoints", ["checkpoint_id"], ["id"])
    op.create_index("ix_merkle_cycles_checkpoint_id", "merkle_cycles", ["checkpoint_id", "position"])
    op.create_index(
        "ix_snapshots_cycle_id", "snapshots", ["cycle_id"], postgresql_where=sa.text("cycle_id IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_snapshots_cycle_id", "snapshots")
    # Nodes and cycles stay, as rows that this version's marks are gone from.
    for name in ("checkpoint_id", "commitments_root", "prediction_count", "position"):
        op.drop_column("merkle_cycles", name)
    op.drop_table("merkle_counted")
    op.drop_column("predictions", "commitment_index")
    op.drop_column("predictions", "commitment_id")
    op.drop_table("merkle_commitments")
