"""A bucket of snapshots keeps their latest summary, which long charts show beside the sums."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("snapshot_buckets", sa.Column("latest_jsonb", JSONB()))


def downgrade() -> None:
    op.drop_column("snapshot_buckets", "latest_jsonb")
