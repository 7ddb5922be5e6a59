"""Sums of predictions and of snapshots by time bucket, which long charts are made of. They are filled while it runs."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prediction_buckets",
        sa.Column("width_seconds", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("begins_at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("model_id", sa.String(), sa.ForeignKey("models.id"), primary_key=True),
        sa.Column("scope_key", sa.String(), primary_key=True),
        sa.Column("prediction_config_id", sa.String(), primary_key=True),
        counted("points"),
        sa.Column("performed_at", sa.DateTime(timezone=True), nullable=False),
        counted("failed"),
        sa.Column("value_total", sa.Float()),
        counted("value_count"),
        sa.Column("horizon_least", sa.Interval()),
        sa.Column("horizon_greatest", sa.Interval()),
        sa.Column("reason_least", sa.String()),
        sa.Column("reason_greatest", sa.String()),
        counted("reason_count"),
        sa.Column("scored_least", sa.DateTime(timezone=True)),
        sa.Column("scored_greatest", sa.DateTime(timezone=True)),
        counted("scored_count"),
        counted("scope_hash_least"),
        counted("scope_hash_greatest"),
        sa.Column("sample_id", sa.String(), nullable=False),
    )
    op.create_table(
        "snapshot_buckets",
        sa.Column("width_seconds", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("model_id", sa.String(), sa.ForeignKey("models.id"), primary_key=True),
        sa.Column("total", sa.Numeric()),
        counted("weight"),
        counted("missing"),
        counted("snapshots"),
        counted("prediction_count"),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("scopes_jsonb", JSONB()),
        sa.Column("numbers_jsonb", JSONB()),
    )


def downgrade() -> None:
    # The mark goes first: without it nobody looks for buckets.
    op.execute("DELETE FROM engine_state WHERE key = 'series_buckets'")
    op.drop_table("snapshot_buckets")
    op.drop_table("prediction_buckets")


def counted(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
