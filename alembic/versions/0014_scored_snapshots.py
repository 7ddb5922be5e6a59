"""An index of the snapshots that hold a score, so that a model's latest is found behind any number that hold none."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_snapshots_scored",
        "snapshots",
        ["model_id", "period_end"],
        postgresql_where=sa.text("prediction_count > 0 AND superseded_by IS NULL"),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_index("ix_snapshots_scored", "snapshots")
