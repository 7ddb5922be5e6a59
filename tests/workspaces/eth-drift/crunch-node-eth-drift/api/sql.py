"""/custom/sql/…: a desk that speaks to the database in plain SQL, naming the columns of that time."""

import json
import uuid
from datetime import datetime, timedelta

from fastapi import APIRouter
from sqlalchemy import text

from coordinator_node.db.session import create_session
from coordinator_node.schemas import ScheduleEnvelope

router = APIRouter(prefix="/custom/sql")

INSERTS = {
    "models": "INSERT INTO models (id, name, deployment_identifier, player_id, player_name, overall_score_jsonb,"
    " scores_by_scope_jsonb, meta_jsonb, created_at, updated_at)"
    " VALUES (:id, 'desk', 'none', 'desk', 'Desk', NULL, '[]', '{}', :now, :now) ON CONFLICT (id) DO NOTHING",
    "inputs": "INSERT INTO inputs (id, raw_data_jsonb, received_at) VALUES (:id, :raw, :now)",
    "predictions": "INSERT INTO predictions (id, input_id, model_id, prediction_config_id, scope_key, scope_jsonb, status,"
    " exec_time_ms, inference_output_jsonb, meta_jsonb, performed_at, resolvable_at)"
    " VALUES (:id, :id, 'desk', :config, 'ETH-2', :scope, 'PENDING', 0, :output, '{}', :performed, :resolvable)",
    "scores": "INSERT INTO scores (id, prediction_id, result_jsonb, success, failed_reason, scored_at)"
    " VALUES (:id, :prediction, :result, true, NULL, :now)",
    "snapshots": "INSERT INTO snapshots (id, model_id, period_start, period_end, prediction_count,"
    " result_summary_jsonb, meta_jsonb, content_hash, created_at)"
    " VALUES (:id, 'desk', :performed, :now, 1, :summary, '{}', NULL, :now)",
    "feed_records": "INSERT INTO feed_records (id, source, subject, kind, granularity, ts_event, ts_ingested,"
    " values_jsonb, meta_jsonb) VALUES (:id, 'desk', 'NEWS', 'tick', '1s', :now, :now, :values, '{}')",
    "scheduled_prediction_configs": "INSERT INTO scheduled_prediction_configs (id, scope_key, scope_template_jsonb,"
    ' schedule_jsonb, active, "order", meta_jsonb) VALUES (:id, \'ETH-9\', :scope, :schedule, false, 9, \'{}\')',
}


@router.post("/call")
def call(value: float) -> dict:
    """A prediction of the desk's, which the score worker is to score, as any other."""
    now = datetime.utcnow()  # as code of that time wrote it
    new_id = uuid.uuid4().hex
    schedule = ScheduleEnvelope(prediction_interval_seconds=9, resolve_horizon_seconds=9).model_dump()
    with create_session() as session:
        config = session.execute(
            text("SELECT id, schedule_jsonb FROM scheduled_prediction_configs WHERE active")
        ).one()
        ScheduleEnvelope.model_validate(config.schedule_jsonb)
        values = {
            "id": new_id,
            "now": now,
            "raw": json.dumps({"symbol": "ETH"}),
            "config": config.id,
            "scope": json.dumps({"subject": "ETH"}),
            "output": json.dumps({"value": value}),
            "performed": now - timedelta(seconds=4),
            "resolvable": now - timedelta(seconds=2),
            "values": json.dumps({"price": 1.0}),
            "schedule": json.dumps(schedule),
        }
        for table in ("models", "inputs", "predictions", "feed_records", "scheduled_prediction_configs"):
            named = {**values, "id": "desk"} if table == "models" else values
            session.execute(text(INSERTS[table]), named)
        session.commit()
    return {"id": new_id}


@router.post("/summary")
def summary(loss: float) -> dict:
    """A score and a snapshot of the desk's own making, which say that they are finished."""
    now = datetime.utcnow()
    new_id = uuid.uuid4().hex
    with create_session() as session:
        prediction = session.execute(
            text("SELECT id FROM predictions WHERE model_id = 'desk' ORDER BY performed_at DESC LIMIT 1")
        ).scalar_one()
        values = {
            "id": new_id,
            "prediction": prediction,
            "now": now,
            "performed": now - timedelta(seconds=4),
            "result": json.dumps({"value": 0.0, "loss": loss}),
            "summary": json.dumps({"loss": loss}),
        }
        session.execute(text(INSERTS["scores"]), values)
        session.execute(text(INSERTS["snapshots"]), values)
        session.commit()
    return {"id": new_id}


@router.get("/statuses")
def statuses() -> dict:
    with create_session() as session:
        rows = session.execute(text("SELECT model_id, status, count(*) FROM predictions GROUP BY 1, 2")).all()
    return {f"{model}/{status}": count for model, status, count in rows}


@router.get("/kept")
def kept() -> dict:
    tables = ("models", "inputs", "predictions", "scores", "snapshots", "checkpoints", "merkle_cycles")
    with create_session() as session:
        return {
            table: [row[0] for row in session.execute(text(f"SELECT id FROM {table} WHERE id LIKE 'old-%' ORDER BY id"))]
            for table in tables
        }
