"""Databases as version 0.1.84 made them, with rows in every table, and what a schema consists of."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, text

from coordinator_node.db.migrations import predecessor_schema

T0 = datetime(2024, 3, 10, 6, 59, 59, 123456, tzinfo=UTC)  # a few seconds before clocks go forward in New York
LATER = T0 + timedelta(minutes=1)
FEED = {"source": "binance", "subject": "BTC", "kind": "tick", "granularity": "1s"}

# Every column of 0.1.84 and none else, so that these inserts are also the plain SQL written for it.
PREDECESSOR_ROWS: list[tuple[str, dict[str, Any]]] = [
    (
        "models",
        {
            "id": "m1",
            "name": "alpha",
            "deployment_identifier": "d1",
            "player_id": "p1",
            "player_name": "Ada",
            "overall_score_jsonb": None,
            "scores_by_scope_jsonb": "[]",
            "meta_jsonb": '{"wallet": "w"}',
            "created_at": T0,
            "updated_at": LATER,
        },
    ),
    ("inputs", {"id": "i1", "raw_data_jsonb": '{"symbol": "BTC"}', "received_at": T0}),
    (
        "scheduled_prediction_configs",
        {
            "id": "old-config",
            "scope_key": "BTC-60",
            "scope_template_jsonb": '{"subject": "BTC"}',
            "schedule_jsonb": '{"prediction_interval_seconds": 15, "resolve_horizon_seconds": 60}',
            "active": True,
            "order": 0,
            "meta_jsonb": "{}",
        },
    ),
    *(
        (
            "predictions",
            {
                "id": f"pr-{status.lower()}",
                "input_id": "i1",
                "model_id": "m1",
                "prediction_config_id": "old-config",
                "scope_key": "BTC-60",
                "scope_jsonb": '{"subject": "BTC"}',
                "status": status,
                "exec_time_ms": 12345.0,
                "inference_output_jsonb": '{"value": 0.5}',
                "meta_jsonb": "{}",
                "performed_at": T0,
                "resolvable_at": LATER,
            },
        )
        for status in ("PENDING", "SCORED", "FAILED", "ABSENT")
    ),
    (
        "scores",
        {
            "id": "s1",
            "prediction_id": "pr-scored",
            "result_jsonb": '{"value": 1.5}',
            "success": True,
            "failed_reason": None,
            "scored_at": LATER,
        },
    ),
    (
        "snapshots",
        {
            "id": "sn1",
            "model_id": "m1",
            "period_start": T0,
            "period_end": LATER,
            "prediction_count": 1,
            "result_summary_jsonb": '{"value": 1.5}',
            "meta_jsonb": "{}",
            "content_hash": "ab",
            "created_at": LATER,
        },
    ),
    ("leaderboards", {"id": "l1", "created_at": LATER, "entries_jsonb": "[]", "meta_jsonb": "{}"}),
    *(
        (
            "checkpoints",
            {
                "id": f"c-{status.lower()}",
                "period_start": T0,
                "period_end": LATER,
                "status": status,
                "entries_jsonb": "[]",
                "meta_jsonb": "{}",
                "merkle_root": None,
                "created_at": LATER,
                "tx_hash": None,
                "submitted_at": None if status == "PENDING" else LATER,
            },
        )
        for status in ("PENDING", "SUBMITTED", "CLAIMABLE", "PAID")
    ),
    (
        "merkle_cycles",
        {
            "id": "mc1",
            "previous_cycle_id": None,
            "previous_cycle_root": None,
            "snapshots_root": "aa",
            "chained_root": "bb",
            "snapshot_count": 1,
            "created_at": LATER,
        },
    ),
    (
        "merkle_nodes",
        {
            "id": "mn1",
            "checkpoint_id": "c-pending",
            "cycle_id": "mc1",
            "level": 0,
            "position": 0,
            "hash": "aa",
            "left_child_id": None,
            "right_child_id": None,
            "snapshot_id": "sn1",
            "snapshot_content_hash": "ab",
            "created_at": LATER,
        },
    ),
    (
        "feed_records",
        {"id": "f1", **FEED, "ts_event": T0, "ts_ingested": LATER, "values_jsonb": '{"price": 1}', "meta_jsonb": None},
    ),
    ("feed_ingestion_state", {"id": "w1", **FEED, "last_event_ts": T0, "updated_at": LATER, "meta_jsonb": "{}"}),
    *(
        (
            "backfill_jobs",
            {
                "id": f"b-{status}",
                **FEED,
                "start_ts": T0,
                "end_ts": LATER,
                "cursor_ts": None,
                "records_written": 0,
                "pages_fetched": 0,
                "status": status,
                "error": None,
                "created_at": T0,
                "updated_at": LATER,
            },
        )
        for status in ("pending", "running", "completed", "failed")
    ),
]

# A prediction whose schedule's row is gone; its horizon is 90 s.
ORPHAN = {
    "id": "pr-orphan",
    "input_id": "i1",
    "model_id": "m1",
    "prediction_config_id": "gone-config",
    "scope_key": "ETH-90",
    "scope_jsonb": '{"subject": "ETH"}',
    "status": "SCORED",
    "exec_time_ms": 0.0,
    "inference_output_jsonb": "{}",
    "meta_jsonb": "{}",
    "performed_at": T0,
    "resolvable_at": T0 + timedelta(seconds=90),
}


def make_predecessor(engine: Engine, *, naive: bool) -> None:
    """The tables of 0.1.84 without rows, made from our own first migration; `naive` has times without a zone."""
    schema = MetaData()
    for table in predecessor_schema().sorted_tables:
        copy = table.to_metadata(schema)
        for column in copy.columns:
            if naive and hasattr(column.type, "timezone"):
                column.type = type(column.type)(timezone=False)
    with engine.begin() as connection:
        schema.create_all(connection)


def insert(connection: Connection, table: str, row: dict[str, Any]) -> None:
    """Plain SQL, as a client of 0.1.84 writes it; the server reads naive times in the session's zone, UTC."""
    names = ", ".join(f'"{name}"' for name in row)
    values = ", ".join(f"CAST(:{name} AS jsonb)" if name.endswith("_jsonb") else f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


def fill_predecessor(engine: Engine) -> None:
    """A row in every table, and one prediction of each status."""
    with engine.begin() as connection:
        for table, row in PREDECESSOR_ROWS:
            insert(connection, table, row)


def fetch(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def schema_facts(engine: Engine) -> dict[str, set[tuple[Any, ...]]]:
    """All columns, constraints and indexes of the public schema, as Postgres itself writes them."""
    columns = """
        SELECT t.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
        WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    """
    # 'n': Postgres 18 also lists NOT NULL, which the columns say already.
    constraints = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    """
    indexes = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    facts = {"columns": columns, "constraints": constraints, "indexes": indexes}
    return {name: {row for row in fetch(engine, query) if row[0] != "alembic_version"} for name, query in facts.items()}


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Polls; fails rather than hang where the condition never comes true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        time.sleep(0.01)


def waiting_for_locks(engine: Engine) -> int:
    """How many sessions of the database wait for an advisory lock now."""
    query = """
        SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    return int(fetch(engine, query)[0][0])
