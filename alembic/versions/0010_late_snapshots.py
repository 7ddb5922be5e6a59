"""An index of the few snapshots that came late, so that a checkpoint finds its own without reading all since then."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_snapshots_late", "snapshots", ["created_at"], postgresql_where=sa.text("meta_jsonb ? 'late'"))


def downgrade() -> None:
    """Take it away."""
    op.drop_index("ix_snapshots_late", "snapshots")
