"""An index of the snapshots that no cycle of ours wrote, so that evidence finds them without reading all the others."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_snapshots_without_cycle", "snapshots", ["period_end"], postgresql_where=sa.text("cycle_id IS NULL")
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_index("ix_snapshots_without_cycle", "snapshots")
