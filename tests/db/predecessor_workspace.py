"""The database of a 0.1.84 deployment that stopped a few seconds ago."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from db_cases import insert, make_predecessor
from sqlalchemy import Engine

DUMP = Path(__file__).parents[3] / "shared" / "data" / "predecessor" / "schema-naive.sql"
# So long before it was started again, its last checkpoint had ended.
OLD_SECONDS = 4
# Rows by table, as /custom/sql/kept of the workspace lists them.
KEPT = {
    "models": ["old-gone"],
    "inputs": ["old-input"],
    "predictions": ["old-scored", "old-waiting"],
    "scores": ["old-score"],
    "snapshots": ["old-snapshot"],
    "checkpoints": ["old-checkpoint"],
    "merkle_cycles": ["old-cycle"],
}


def fill_as_0_1_84(engine: Engine, began: datetime) -> None:
    """Make it in an empty database: the dumped schema where it is here, else ours of it; and rows up to `began`."""
    if DUMP.is_file():
        raw = engine.raw_connection()
        raw.cursor().execute(DUMP.read_text())
        raw.commit()
        raw.close()
    else:
        make_predecessor(engine, naive=True)
    with engine.begin() as connection:
        for table, row in _rows(began):
            insert(connection, table, row)


def _rows(began: datetime) -> list[tuple[str, dict[str, Any]]]:
    def ago(minutes: int) -> datetime:
        return began - timedelta(minutes=minutes)

    model = {
        "deployment_identifier": "d",
        "player_id": "p",
        "player_name": "Ada",
        "overall_score_jsonb": None,
        "scores_by_scope_jsonb": "[]",
        "meta_jsonb": "{}",
        "created_at": ago(60),
        "updated_at": ago(5),
    }
    schedule = {"prediction_interval_seconds": 1, "resolve_horizon_seconds": 2}
    prediction = {
        "input_id": "old-input",
        "prediction_config_id": "old-schedule",
        "scope_key": "ETH-2",
        "scope_jsonb": '{"subject": "ETH"}',
        "exec_time_ms": 12000.0,
        "inference_output_jsonb": '{"value": 0.5}',
        "meta_jsonb": "{}",
        "performed_at": ago(2),
        "resolvable_at": ago(2) + timedelta(seconds=2),
    }
    emission = {
        "crunch": "c",
        "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 1_000_000_000}],
        "compute_provider_rewards": [],
        "data_provider_rewards": [],
    }
    ranking = [{"model_id": "drifter", "model_name": "drifter", "rank": 1}]
    return [
        *(("models", {**model, "id": name, "name": name}) for name in ("drifter", "old-gone")),
        ("inputs", {"id": "old-input", "raw_data_jsonb": '{"symbol": "ETH"}', "received_at": ago(2)}),
        (
            "scheduled_prediction_configs",
            {
                "id": "old-schedule",
                "scope_key": "ETH-2",
                "scope_template_jsonb": '{"subject": "ETH"}',
                "schedule_jsonb": json.dumps(schedule),
                "active": True,
                "order": 0,
                "meta_jsonb": "{}",
            },
        ),
        ("predictions", {**prediction, "id": "old-scored", "model_id": "drifter", "status": "SCORED"}),
        ("predictions", {**prediction, "id": "old-waiting", "model_id": "old-gone", "status": "PENDING"}),
        (
            "scores",
            {
                "id": "old-score",
                "prediction_id": "old-scored",
                "result_jsonb": '{"value": -3.0, "loss": 3.0}',
                "success": True,
                "failed_reason": None,
                "scored_at": ago(1),
            },
        ),
        (
            "snapshots",
            {
                "id": "old-snapshot",
                "model_id": "drifter",
                "period_start": ago(3),
                "period_end": ago(1),
                "prediction_count": 1,
                "result_summary_jsonb": '{"loss": 3.0}',
                "meta_jsonb": "{}",
                "content_hash": "ab",
                "created_at": ago(1),
            },
        ),
        ("leaderboards", {"id": "old-board", "created_at": ago(1), "entries_jsonb": "[]", "meta_jsonb": "{}"}),
        (
            "checkpoints",
            {
                "id": "old-checkpoint",
                "period_start": ago(60),
                "period_end": began - timedelta(seconds=OLD_SECONDS),
                "status": "PENDING",
                "entries_jsonb": json.dumps([emission]),
                "meta_jsonb": json.dumps({"ranking": ranking}),
                "merkle_root": "cd",
                "created_at": ago(1),
                "tx_hash": None,
                "submitted_at": None,
            },
        ),
        (
            "merkle_cycles",
            {
                "id": "old-cycle",
                "previous_cycle_id": None,
                "previous_cycle_root": None,
                "snapshots_root": "ab",
                "chained_root": "cd",
                "snapshot_count": 1,
                "created_at": ago(1),
            },
        ),
    ]
