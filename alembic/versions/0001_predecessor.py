"""The tables of version 0.1.84, with times as timestamptz.

An existing 0.1.84 database is brought to this revision by coordinator_node/db/adoption.py, which reads SCHEMA to
recognise one.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = sa.MetaData()

sa.Table(
    "models",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("name", sa.String(), nullable=False),
    sa.Column("deployment_identifier", sa.String(), nullable=False),
    sa.Column("player_id", sa.String(), nullable=False),
    sa.Column("player_name", sa.String(), nullable=False),
    sa.Column("overall_score_jsonb", JSONB()),
    sa.Column("scores_by_scope_jsonb", JSONB()),
    sa.Column("meta_jsonb", JSONB()),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_models_created_at", "created_at"),
    sa.Index("ix_models_player_id", "player_id"),
    sa.Index("ix_models_updated_at", "updated_at"),
)
sa.Table(
    "inputs",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("raw_data_jsonb", JSONB()),
    sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_inputs_received_at", "received_at"),
)
sa.Table(
    "scheduled_prediction_configs",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("scope_key", sa.String(), nullable=False),
    sa.Column("scope_template_jsonb", JSONB()),
    sa.Column("schedule_jsonb", JSONB()),
    sa.Column("active", sa.Boolean(), nullable=False),
    sa.Column("order", sa.Integer(), nullable=False),
    sa.Column("meta_jsonb", JSONB()),
    sa.Index("ix_scheduled_prediction_configs_active", "active"),
    sa.Index("ix_scheduled_prediction_configs_scope_key", "scope_key"),
)
sa.Table(
    "predictions",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("input_id", sa.String(), sa.ForeignKey("inputs.id"), nullable=False),
    sa.Column("model_id", sa.String(), sa.ForeignKey("models.id"), nullable=False),
    sa.Column("prediction_config_id", sa.String()),
    sa.Column("scope_key", sa.String(), nullable=False),
    sa.Column("scope_jsonb", JSONB()),
    sa.Column("status", sa.String(), nullable=False),
    sa.Column("exec_time_ms", sa.Float(), nullable=False),
    sa.Column("inference_output_jsonb", JSONB()),
    sa.Column("meta_jsonb", JSONB()),
    sa.Column("performed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("resolvable_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("idx_predictions_lookup", "model_id", "scope_key"),
    sa.Index("ix_predictions_input_id", "input_id"),
    sa.Index("ix_predictions_model_id", "model_id"),
    sa.Index("ix_predictions_performed_at", "performed_at"),
    sa.Index("ix_predictions_prediction_config_id", "prediction_config_id"),
    sa.Index("ix_predictions_resolvable_at", "resolvable_at"),
    sa.Index("ix_predictions_scope_key", "scope_key"),
    sa.Index("ix_predictions_status", "status"),
)
sa.Table(
    "scores",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("prediction_id", sa.String(), sa.ForeignKey("predictions.id"), nullable=False),
    sa.Column("result_jsonb", JSONB()),
    sa.Column("success", sa.Boolean()),
    sa.Column("failed_reason", sa.String()),
    sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_scores_prediction_id", "prediction_id"),
    sa.Index("ix_scores_scored_at", "scored_at"),
)
sa.Table(
    "snapshots",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("model_id", sa.String(), sa.ForeignKey("models.id"), nullable=False),
    sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
    sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
    sa.Column("prediction_count", sa.Integer(), nullable=False),
    sa.Column("result_summary_jsonb", JSONB()),
    sa.Column("meta_jsonb", JSONB()),
    sa.Column("content_hash", sa.String()),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_snapshots_content_hash", "content_hash"),
    sa.Index("ix_snapshots_created_at", "created_at"),
    sa.Index("ix_snapshots_model_id", "model_id"),
    sa.Index("ix_snapshots_period_end", "period_end"),
    sa.Index("ix_snapshots_period_start", "period_start"),
)
sa.Table(
    "leaderboards",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("entries_jsonb", JSONB()),
    sa.Column("meta_jsonb", JSONB()),
    sa.Index("ix_leaderboards_created_at", "created_at"),
)
sa.Table(
    "checkpoints",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
    sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
    sa.Column("status", sa.String(), nullable=False),
    sa.Column("entries_jsonb", JSONB()),
    sa.Column("meta_jsonb", JSONB()),
    sa.Column("merkle_root", sa.String()),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("tx_hash", sa.String()),
    sa.Column("submitted_at", sa.DateTime(timezone=True)),
    sa.Index("ix_checkpoints_created_at", "created_at"),
    sa.Index("ix_checkpoints_period_end", "period_end"),
    sa.Index("ix_checkpoints_period_start", "period_start"),
    sa.Index("ix_checkpoints_status", "status"),
)
sa.Table(
    "merkle_cycles",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("previous_cycle_id", sa.String()),
    sa.Column("previous_cycle_root", sa.String()),
    sa.Column("snapshots_root", sa.String(), nullable=False),
    sa.Column("chained_root", sa.String(), nullable=False),
    sa.Column("snapshot_count", sa.Integer(), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_merkle_cycles_chained_root", "chained_root"),
    sa.Index("ix_merkle_cycles_created_at", "created_at"),
    sa.Index("ix_merkle_cycles_previous_cycle_id", "previous_cycle_id"),
)
sa.Table(
    "merkle_nodes",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("checkpoint_id", sa.String(), sa.ForeignKey("checkpoints.id")),
    sa.Column("cycle_id", sa.String(), sa.ForeignKey("merkle_cycles.id")),
    sa.Column("level", sa.Integer(), nullable=False),
    sa.Column("position", sa.Integer(), nullable=False),
    sa.Column("hash", sa.String(), nullable=False),
    sa.Column("left_child_id", sa.String()),
    sa.Column("right_child_id", sa.String()),
    sa.Column("snapshot_id", sa.String(), sa.ForeignKey("snapshots.id")),
    sa.Column("snapshot_content_hash", sa.String()),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_merkle_nodes_checkpoint_id", "checkpoint_id"),
    sa.Index("ix_merkle_nodes_cycle_id", "cycle_id"),
    sa.Index("ix_merkle_nodes_snapshot_id", "snapshot_id"),
)
sa.Table(
    "feed_records",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("source", sa.String(), nullable=False),
    sa.Column("subject", sa.String(), nullable=False),
    sa.Column("kind", sa.String(), nullable=False),
    sa.Column("granularity", sa.String(), nullable=False),
    sa.Column("ts_event", sa.DateTime(timezone=True), nullable=False),
    sa.Column("ts_ingested", sa.DateTime(timezone=True), nullable=False),
    sa.Column("values_jsonb", JSONB()),
    sa.Column("meta_jsonb", JSONB()),
    sa.Index("ix_feed_records_granularity", "granularity"),
    sa.Index("ix_feed_records_kind", "kind"),
    sa.Index("ix_feed_records_source", "source"),
    sa.Index("ix_feed_records_subject", "subject"),
    sa.Index("ix_feed_records_ts_event", "ts_event"),
    sa.Index("ix_feed_records_ts_ingested", "ts_ingested"),
    sa.Index("uq_feed_records_event", "source", "subject", "kind", "granularity", "ts_event", unique=True),
)
sa.Table(
    "feed_ingestion_state",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("source", sa.String(), nullable=False),
    sa.Column("subject", sa.String(), nullable=False),
    sa.Column("kind", sa.String(), nullable=False),
    sa.Column("granularity", sa.String(), nullable=False),
    sa.Column("last_event_ts", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("meta_jsonb", JSONB()),
    sa.Index("ix_feed_ingestion_state_granularity", "granularity"),
    sa.Index("ix_feed_ingestion_state_kind", "kind"),
    sa.Index("ix_feed_ingestion_state_last_event_ts", "last_event_ts"),
    sa.Index("ix_feed_ingestion_state_source", "source"),
    sa.Index("ix_feed_ingestion_state_subject", "subject"),
    sa.Index("ix_feed_ingestion_state_updated_at", "updated_at"),
    sa.Index("uq_feed_ingestion_scope", "source", "subject", "kind", "granularity", unique=True),
)
sa.Table(
    "backfill_jobs",
    SCHEMA,
    sa.Column("id", sa.String(), primary_key=True),
    sa.Column("source", sa.String(), nullable=False),
    sa.Column("subject", sa.String(), nullable=False),
    sa.Column("kind", sa.String(), nullable=False),
    sa.Column("granularity", sa.String(), nullable=False),
    sa.Column("start_ts", sa.DateTime(timezone=True), nullable=False),
    sa.Column("end_ts", sa.DateTime(timezone=True), nullable=False),
    sa.Column("cursor_ts", sa.DateTime(timezone=True)),
    sa.Column("records_written", sa.Integer(), nullable=False),
    sa.Column("pages_fetched", sa.Integer(), nullable=False),
    sa.Column("status", sa.String(), nullable=False),
    sa.Column("error", sa.String()),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_backfill_jobs_created_at", "created_at"),
    sa.Index("ix_backfill_jobs_granularity", "granularity"),
    sa.Index("ix_backfill_jobs_kind", "kind"),
    sa.Index("ix_backfill_jobs_source", "source"),
    sa.Index("ix_backfill_jobs_status", "status"),
    sa.Index("ix_backfill_jobs_subject", "subject"),
    sa.Index("ix_backfill_jobs_updated_at", "updated_at"),
)


def upgrade() -> None:
    SCHEMA.create_all(op.get_bind(), checkfirst=False)


def downgrade() -> None:
    SCHEMA.drop_all(op.get_bind(), checkfirst=False)
