"""From the tables of 0.1.84 to rows that say what is due: statuses, slots, leases, heartbeats.

Every new column is nullable or has a server default that means "finished by someone else", so that an INSERT which
names only the older columns goes on working.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TSTZRANGE

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATUSES = {
    ("inputs", "status"): ("RECEIVED", "RESOLVED"),
    ("predictions", "status"): ("PENDING", "SCORED", "FAILED", "ABSENT"),
    ("scores", "snapshot_state"): ("PENDING", "COUNTED"),
    ("models", "presence"): ("PRESENT", "AWAY"),
    ("checkpoints", "status"): ("PENDING", "SUBMITTED", "CLAIMABLE", "PAID"),
    ("backfill_jobs", "status"): ("pending", "running", "completed", "failed"),
}

# No query of the engine reads these; each made every insert dearer.
UNUSED_INDEXES = {
    "backfill_jobs": ("granularity", "kind", "source", "subject", "updated_at"),
    "feed_ingestion_state": ("granularity", "kind", "last_event_ts", "source", "subject", "updated_at"),
    "feed_records": ("granularity", "kind", "source", "subject", "ts_ingested"),
    "predictions": ("model_id", "scope_key", "status"),
    "scores": ("prediction_id",),
    "snapshots": ("model_id", "period_start"),
}

# A prediction of 0.1.84 may name a schedule that is gone. The prediction tells its horizon, nothing tells its interval:
# 60 s is the default of a schedule.
ORPHANS_SCHEDULES = """
INSERT INTO scheduled_prediction_configs
    (id, scope_key, scope_template_jsonb, schedule_jsonb, active, "order", meta_jsonb)
SELECT DISTINCT ON (prediction.prediction_config_id)
    prediction.prediction_config_id,
    prediction.scope_key,
    COALESCE(prediction.scope_jsonb, '{}'),
    jsonb_build_object(
        'prediction_interval_seconds', 60,
        'resolve_horizon_seconds',
        GREATEST(0, EXTRACT(EPOCH FROM prediction.resolvable_at - prediction.performed_at)::bigint)
    ),
    false,
    0,
    '{"note": "made by migrate: predictions name this schedule, and its row was missing"}'
FROM predictions AS prediction
LEFT JOIN scheduled_prediction_configs AS schedule ON schedule.id = prediction.prediction_config_id
WHERE prediction.prediction_config_id IS NOT NULL AND schedule.id IS NULL
ORDER BY prediction.prediction_config_id, prediction.performed_at DESC, prediction.id
"""

# 0.1.84 stored a score first and the prediction's status later: a crash between them left a prediction pending that
# has its score, and that would be scored and counted a second time.
SCORED_BEFORE = """
UPDATE predictions SET status = CASE WHEN scored.succeeded THEN 'SCORED' ELSE 'FAILED' END
FROM (SELECT prediction_id, bool_or(success) AS succeeded FROM scores GROUP BY prediction_id) AS scored
WHERE scored.prediction_id = predictions.id AND predictions.status = 'PENDING'
"""
# Ties are broken by it.
FIRST_SCORED = """
UPDATE models SET first_scored_at = scored.first
FROM (
    SELECT prediction.model_id, min(scores.scored_at) AS first
    FROM scores JOIN predictions AS prediction ON prediction.id = scores.prediction_id
    WHERE scores.success GROUP BY prediction.model_id
) AS scored
WHERE scored.model_id = models.id
"""


def upgrade() -> None:
    for table, columns in UNUSED_INDEXES.items():
        for column in columns:
            op.drop_index(f"ix_{table}_{column}", table, if_exists=True)
    create_runtime_tables()
    create_slots()
    extend_predictions()
    extend_scores()
    extend_others()
    for (table, column), values in STATUSES.items():
        listed = ", ".join(f"'{value}'" for value in values)
        op.create_check_constraint(f"ck_{table}_{column}", table, f"{column} IN ({listed})")


def create_runtime_tables() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        instant("acquired_at", nullable=False),
        instant("expires_at", nullable=False),
    )
    op.create_table(
        "worker_heartbeats",
        sa.Column("worker_id", sa.String(), primary_key=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        instant("started_at", nullable=False),
        instant("beat_at", nullable=False),
        instant("last_pass_at"),
        sa.Column("last_pass_jsonb", JSONB()),
        sa.Column("last_error", sa.String()),
        instant("last_error_at"),
    )
    op.create_table(
        "engine_state",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value_jsonb", JSONB()),
        instant("updated_at", nullable=False),
    )


def create_slots() -> None:
    op.add_column("scheduled_prediction_configs", instant("activated_at"))
    op.create_table(
        "prediction_slots",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column(
            "prediction_config_id", sa.String(), sa.ForeignKey("scheduled_prediction_configs.id"), nullable=False
        ),
        instant("slot_at", nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("input_id", sa.String(), sa.ForeignKey("inputs.id")),
        instant("deadline_at"),
        instant("created_at", nullable=False),
        sa.UniqueConstraint("prediction_config_id", "slot_at", name="uq_prediction_slots_moment"),
        sa.CheckConstraint("status IN ('CALLED', 'MISSED')", name="ck_prediction_slots_status"),
        sa.CheckConstraint(
            "(status = 'MISSED' AND reason IS NOT NULL)"
            " OR (status = 'CALLED' AND input_id IS NOT NULL AND deadline_at IS NOT NULL)",
            name="ck_prediction_slots_complete",
        ),
    )
    op.create_table(
        "slot_calls",
        sa.Column("slot_id", sa.String(), sa.ForeignKey("prediction_slots.id"), primary_key=True),
        sa.Column("lease_name", sa.String(), primary_key=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("model_ids_jsonb", JSONB()),
        instant("called_at", nullable=False),
        instant("closed_at"),
    )
    op.create_index("ix_slot_calls_open", "slot_calls", ["lease_name"], postgresql_where=sa.text("closed_at IS NULL"))


def extend_predictions() -> None:
    op.execute(SCORED_BEFORE)
    op.execute(ORPHANS_SCHEDULES)
    op.add_column("predictions", sa.Column("slot_id", sa.String()))
    op.add_column("predictions", sa.Column("failed_reason", sa.String()))
    op.add_column("predictions", instant("answered_at"))
    op.add_column("predictions", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("predictions", instant("next_attempt_at"))
    op.create_foreign_key(
        "predictions_prediction_config_id_fkey",
        "predictions",
        "scheduled_prediction_configs",
        ["prediction_config_id"],
        ["id"],
    )
    op.create_foreign_key("predictions_slot_id_fkey", "predictions", "prediction_slots", ["slot_id"], ["id"])
    op.create_unique_constraint("uq_predictions_slot_model", "predictions", ["slot_id", "model_id"])
    op.create_index(
        "ix_predictions_claim",
        "predictions",
        [sa.text("COALESCE(next_attempt_at, resolvable_at)")],
        postgresql_where=sa.text("status = 'PENDING'"),
    )


def extend_scores() -> None:
    op.add_column("scores", sa.Column("generation", sa.Integer()))
    op.add_column("scores", sa.Column("snapshot_state", sa.String(), nullable=False, server_default="COUNTED"))
    op.add_column("scores", sa.Column("snapshot_id", sa.String()))
    op.create_foreign_key("scores_snapshot_id_fkey", "scores", "snapshots", ["snapshot_id"], ["id"])
    op.create_unique_constraint("uq_scores_prediction_generation", "scores", ["prediction_id", "generation"])
    op.create_index(
        "ix_scores_uncounted", "scores", ["scored_at"], postgresql_where=sa.text("snapshot_state = 'PENDING'")
    )


def extend_others() -> None:
    op.add_column("inputs", sa.Column("status", sa.String(), nullable=False, server_default="RESOLVED"))
    op.add_column("inputs", sa.Column("actuals_jsonb", JSONB()))
    op.add_column("inputs", sa.Column("scope_jsonb", JSONB()))
    op.add_column("snapshots", sa.Column("cycle_id", sa.String()))
    op.create_unique_constraint("uq_snapshots_cycle_model", "snapshots", ["cycle_id", "model_id", "period_start"])
    op.create_index("ix_snapshots_model_id_period_end", "snapshots", ["model_id", "period_end"])
    op.add_column("models", sa.Column("presence", sa.String()))
    op.add_column("models", instant("presence_since"))
    op.add_column("models", instant("first_scored_at"))
    op.execute(FIRST_SCORED)
    op.add_column("checkpoints", sa.Column("period", TSTZRANGE()))
    op.create_exclude_constraint("ex_checkpoints_period", "checkpoints", ("period", "&&"), using="gist")


def instant(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def downgrade() -> None:
    for table, column in STATUSES:
        op.drop_constraint(f"ck_{table}_{column}", table, type_="check")
    # What stands on a dropped column (keys, foreign keys, indexes) goes with it.
    new_columns = {
        "predictions": ("slot_id", "failed_reason", "answered_at", "attempts", "next_attempt_at"),
        "scores": ("generation", "snapshot_state", "snapshot_id"),
        "inputs": ("status", "actuals_jsonb", "scope_jsonb"),
        "snapshots": ("cycle_id",),
        "models": ("presence", "presence_since", "first_scored_at"),
        "checkpoints": ("period",),
        "scheduled_prediction_configs": ("activated_at",),
    }
    for table, columns in new_columns.items():
        for column in columns:
            op.drop_column(table, column)
    op.drop_constraint("predictions_prediction_config_id_fkey", "predictions", type_="foreignkey")
    op.drop_index("ix_snapshots_model_id_period_end", "snapshots")
    for table in ("slot_calls", "prediction_slots", "engine_state", "worker_heartbeats", "leases"):
        op.drop_table(table)
    for table, columns in UNUSED_INDEXES.items():
        for column in columns:
            op.create_index(f"ix_{table}_{column}", table, [column])
