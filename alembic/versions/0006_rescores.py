"""Scoring a closed period again: its generations, and which snapshots they replaced."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

# A generation's scores without their snapshots would be counted by nobody, and beside those they replaced.
FORGET_GENERATIONS = (
    "UPDATE snapshots SET superseded_by = NULL WHERE superseded_by IS NOT NULL",
    "DELETE FROM scores WHERE generation > 1",
    "DELETE FROM snapshots WHERE origin_id IS NOT NULL",
)


def upgrade() -> None:
    op.create_table(
        "rescores",
        sa.Column("generation", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("meta_jsonb", JSONB()),
    )
    op.add_column("snapshots", sa.Column("origin_id", sa.String()))
    op.add_column("snapshots", sa.Column("superseded_by", sa.Integer()))
    op.create_foreign_key("snapshots_origin_id_fkey", "snapshots", "snapshots", ["origin_id"], ["id"])
    op.create_foreign_key("snapshots_superseded_by_fkey", "snapshots", "rescores", ["superseded_by"], ["generation"])


def downgrade() -> None:
    for statement in FORGET_GENERATIONS:
        op.execute(statement)
    op.drop_column("snapshots", "superseded_by")
    op.drop_column("snapshots", "origin_id")
    op.drop_table("rescores")
