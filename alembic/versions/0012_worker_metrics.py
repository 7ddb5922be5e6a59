"""A worker's heartbeat may carry what it counts for Prometheus."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker_heartbeats", sa.Column("metrics_jsonb", JSONB()))


def downgrade() -> None:
    op.drop_column("worker_heartbeats", "metrics_jsonb")
