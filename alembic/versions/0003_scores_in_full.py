"""What the score stage needs in full: misses counted once, stateful scoring, weights of ensembles, and its indexes."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Each is paid for with every prediction that is written and again when it is scored. Nothing reads by the second;
# what reads by the first reads by model, which its successor begins with.
REPLACED_INDEXES = {
    "idx_predictions_lookup": ("model_id", "scope_key"),
    "ix_predictions_prediction_config_id": ("prediction_config_id",),
}


def upgrade() -> None:
    for name in REPLACED_INDEXES:
        op.drop_index(name, "predictions", if_exists=True)
    op.create_index("ix_predictions_model_resolvable", "predictions", ["model_id", "resolvable_at"])
    op.create_index(
        "ix_predictions_pending_by_model",
        "predictions",
        ["model_id", "resolvable_at"],
        postgresql_where=sa.text("status = 'PENDING'"),
    )
    op.add_column("predictions", sa.Column("snapshot_id", sa.String()))
    op.create_foreign_key("predictions_snapshot_id_fkey", "predictions", "snapshots", ["snapshot_id"], ["id"])
    op.create_index(
        "ix_predictions_uncounted_misses",
        "predictions",
        ["resolvable_at"],
        postgresql_where=sa.text("status IN ('FAILED', 'ABSENT') AND slot_id IS NOT NULL AND snapshot_id IS NULL"),
    )
    op.create_table(
        "scoring_states",
        sa.Column("model_id", sa.String(), sa.ForeignKey("models.id"), primary_key=True),
        sa.Column("state_jsonb", JSONB()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "ensemble_weights",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("model_id", sa.String(), sa.ForeignKey("models.id"), nullable=False),
        sa.Column("computed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("weights_jsonb", JSONB()),
    )
    op.create_index("ix_ensemble_weights_newest", "ensemble_weights", ["model_id", "computed_at"])


def downgrade() -> None:
    op.drop_table("ensemble_weights")
    op.drop_table("scoring_states")
    # Its foreign key and partial index go with the column.
    op.drop_column("predictions", "snapshot_id")
    op.drop_index("ix_predictions_pending_by_model", "predictions")
    op.drop_index("ix_predictions_model_resolvable", "predictions")
    for name, columns in REPLACED_INDEXES.items():
        op.create_index(name, "predictions", list(columns))
