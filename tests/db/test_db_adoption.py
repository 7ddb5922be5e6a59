from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from db_cases import (
    LATER,
    ORPHAN,
    PREDECESSOR_ROWS,
    T0,
    fetch,
    fill_predecessor,
    insert,
    make_predecessor,
    schema_facts,
    wait_until,
    waiting_for_locks,
)
from sqlalchemy import Engine, text

from coordinator_node.db.advisory import AdvisoryLock, take
from coordinator_node.db.migrations import MigrationError, migrate_engine, predecessor_schema
from coordinator_node.entities.errors import ConfigurationError

Connect = Callable[[str], Engine]
KINDS = ["naive", "aware"]
DUMPS = Path(__file__).parents[3] / "shared" / "data" / "predecessor"


def dump_of(kind: str) -> str:
    path = DUMPS / f"schema-{kind}.sql"
    if not path.is_file():
        pytest.skip(f"the dump {path.name} of a 0.1.84 schema is not here")
    return path.read_text()


def run_script(engine: Engine, script: str) -> None:
    raw = engine.raw_connection()
    try:
        raw.cursor().execute(script)
        raw.commit()
    finally:
        raw.close()


def by_our_builder(engine: Engine, kind: str) -> None:
    make_predecessor(engine, naive=kind == "naive")


def by_dump(engine: Engine, kind: str) -> None:
    run_script(engine, dump_of(kind))


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture
def target(empty_database_url: str, connect: Connect) -> Engine:
    return connect(empty_database_url)


def rows_of(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """All rows of 0.1.84's columns, by table."""
    found: dict[str, list[dict[str, Any]]] = {}
    with engine.connect() as connection:
        for table in predecessor_schema().sorted_tables:
            rows = connection.execute(table.select().order_by(table.c.id)).mappings()
            found[table.name] = [dict(row) for row in rows]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_migration_is_the_dumped_schema(kind: str, target: Engine, engine: Engine) -> None:
    by_dump(target, kind)
    change(engine, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    by_our_builder(engine, kind)
    assert schema_facts(engine) == schema_facts(target)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [by_our_builder, by_dump])
def test_adoption_keeps_every_row_and_ends_at_the_newest_schema(
    build: Callable[[Engine, str], None], kind: str, target: Engine, engine: Engine
) -> None:
    build(target, kind)
    fill_predecessor(target)
    with target.begin() as connection:
        insert(connection, "predictions", ORPHAN)
    # A zone in which naive times would be read wrongly, and in which one of them does not exist.
    name = target.url.database
    change(target, f"ALTER DATABASE {name} SET timezone = 'America/New_York'")
    target.dispose()

    assert "0.1.84 was adopted" in migrate_engine(target)

    assert schema_facts(target) == schema_facts(engine)
    adopted = rows_of(target)
    fill_predecessor(engine)
    change(engine, "UPDATE predictions SET exec_time_ms = exec_time_ms / 1000")
    expected = rows_of(engine)
    orphans = [row for row in adopted["predictions"] if row["id"] == "pr-orphan"]
    schedules = [row for row in adopted["scheduled_prediction_configs"] if row["id"] == "gone-config"]
    adopted["predictions"].remove(orphans[0])
    adopted["scheduled_prediction_configs"].remove(schedules[0])
    assert adopted == expected
    assert {row["exec_time_ms"] for row in adopted["predictions"]} == {12.345}
    assert adopted["feed_records"][0]["ts_event"] == T0
    assert adopted["feed_records"][0]["ts_ingested"] == LATER
    assert orphans[0]["prediction_config_id"] == "gone-config"
    assert schedules[0]["scope_key"] == "ETH-90"
    assert schedules[0]["active"] is False
    assert schedules[0]["schedule_jsonb"] == {"prediction_interval_seconds": 60, "resolve_horizon_seconds": 90}
    assert set(fetch(target, "SELECT status FROM inputs")) == {("RESOLVED",)}
    assert set(fetch(target, "SELECT snapshot_state FROM scores")) == {("COUNTED",)}
    assert "already" in migrate_engine(target)


@pytest.mark.parametrize(("success", "status"), [(True, "SCORED"), (False, "FAILED")])
def test_what_was_scored_before_a_crash_is_not_scored_again(success: bool, status: str, target: Engine) -> None:
    make_predecessor(target, naive=True)
    fill_predecessor(target)
    with target.begin() as connection:
        (score,) = [row for table, row in PREDECESSOR_ROWS if table == "scores"]
        changed = {"id": "s2", "prediction_id": "pr-pending", "success": success, "scored_at": T0}
        insert(connection, "scores", {**score, **changed})
    migrate_engine(target)
    assert fetch(target, "SELECT status FROM predictions WHERE id = 'pr-pending'") == [(status,)]
    assert fetch(target, "SELECT first_scored_at FROM models") == [(T0 if success else LATER,)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_added_is_left_alone(kind: str, target: Engine, engine: Engine) -> None:
    by_our_builder(target, kind)
    fill_predecessor(target)
    change(
        target,
        "CREATE TABLE prizes (model_id varchar REFERENCES models (id), at timestamp)",
        "INSERT INTO prizes VALUES ('m1', '2024-01-01')",
        "ALTER TABLE predictions ADD COLUMN desk text NOT NULL DEFAULT 'fx', ADD COLUMN seen timestamp",
        "CREATE INDEX my_index ON predictions (desk)",
        "CREATE VIEW answers AS SELECT model_id, inference_output_jsonb, exec_time_ms FROM predictions",
    )
    migrate_engine(target)
    assert fetch(target, "SELECT model_id, at::text FROM prizes") == [("m1", "2024-01-01 00:00:00")]
    assert set(fetch(target, "SELECT desk, seen FROM predictions")) == {("fx", None)}
    assert set(fetch(target, "SELECT exec_time_ms FROM answers")) == {(12.345,)}
    found, ours = schema_facts(target), schema_facts(engine)
    extra = {kind: {row[:2] for row in found[kind] - ours[kind]} for kind in found}
    assert ours["columns"] <= found["columns"]
    assert extra == {
        "columns": {("prizes", "model_id"), ("prizes", "at"), ("predictions", "desk"), ("predictions", "seen")},
        "constraints": {("prizes", "prizes_model_id_fkey")},
        "indexes": {("predictions", "my_index")},
    }


def test_keys_that_someone_removed_or_0_1_84_still_had_are_put_right(target: Engine, engine: Engine) -> None:
    by_our_builder(target, "naive")
    fill_predecessor(target)
    change(
        target,
        "DROP INDEX uq_feed_records_event, ix_inputs_received_at, ix_scores_prediction_id",
        "ALTER TABLE scores DROP CONSTRAINT scores_prediction_id_fkey",
        "ALTER TABLE predictions ADD FOREIGN KEY (prediction_config_id) REFERENCES scheduled_prediction_configs (id)",
        "ALTER TABLE models ALTER COLUMN name TYPE text",
    )
    migrate_engine(target)
    found, ours = schema_facts(target), schema_facts(engine)
    assert found["indexes"] == ours["indexes"]
    assert found["constraints"] == ours["constraints"]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("DROP TABLE merkle_nodes", "the table merkle_nodes is missing"),
        ("ALTER TABLE scores DROP COLUMN failed_reason", "the table scores lacks the column failed_reason"),
        ("ALTER TABLE models ALTER COLUMN name TYPE varchar(20)", "models.name is VARCHAR(20), and not VARCHAR"),
        ("ALTER TABLE inputs ALTER COLUMN raw_data_jsonb TYPE json", "inputs.raw_data_jsonb is JSON, and not JSONB"),
        ("ALTER TABLE feed_records ALTER COLUMN ts_event DROP NOT NULL", "feed_records.ts_event is not NOT NULL"),
        ("ALTER TABLE leaderboards DROP CONSTRAINT leaderboards_pkey", "the primary key of leaderboards is not its id"),
        ("CREATE TABLE leases (flat int)", "the name leases is taken by something"),
        ("CREATE VIEW engine_state AS SELECT 1", "the name engine_state is taken by something"),
        ("ALTER TABLE inputs ADD COLUMN status int", "the table inputs has a column status that is not"),
        ("CREATE INDEX ix_predictions_claim ON predictions (id)", "the name ix_predictions_claim is taken by an index"),
    ],
)
def test_what_is_not_recognised_is_refused_by_name_and_left_alone(statement: str, named: str, target: Engine) -> None:
    by_our_builder(target, "naive")
    change(target, statement)
    before = schema_facts(target)
    with pytest.raises(ConfigurationError) as refused:
        migrate_engine(target)
    assert named in str(refused.value)
    assert "Nothing was changed" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert schema_facts(target) == before
    assert fetch(target, "SELECT to_regclass('alembic_version')") == [(None,)]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TABLE models (id int, weights bytea)", "the table backfill_jobs is missing"),
        ("CREATE TABLE worker_heartbeats (id int)", "the name worker_heartbeats is taken"),
    ],
)
def test_a_database_of_someone_else_with_a_table_of_our_name_is_refused(
    statement: str, named: str, target: Engine
) -> None:
    change(target, statement)
    before = schema_facts(target)
    with pytest.raises(ConfigurationError, match=named):
        migrate_engine(target)
    assert schema_facts(target) == before


def test_a_database_with_tables_of_others_only_counts_as_empty(target: Engine, engine: Engine) -> None:
    change(target, "CREATE TABLE customers (id int PRIMARY KEY)")
    assert "was made" in migrate_engine(target)
    change(target, "DROP TABLE customers")
    assert schema_facts(target) == schema_facts(engine)


def test_a_row_that_cannot_be_taken_over_stops_all_of_it(target: Engine) -> None:
    by_our_builder(target, "naive")
    fill_predecessor(target)
    change(target, "UPDATE predictions SET status = 'WEIRD' WHERE id = 'pr-failed'")
    before, rows = schema_facts(target), fetch(target, "SELECT * FROM predictions ORDER BY id")
    with pytest.raises(MigrationError, match=r"nothing was changed.*ck_predictions_status"):
        migrate_engine(target)
    assert schema_facts(target) == before
    assert fetch(target, "SELECT * FROM predictions ORDER BY id") == rows
    change(target, "UPDATE predictions SET status = 'FAILED' WHERE id = 'pr-failed'")
    assert "adopted" in migrate_engine(target)


def test_a_view_over_a_naive_time_is_named(target: Engine) -> None:
    by_our_builder(target, "naive")
    change(target, "CREATE VIEW recent AS SELECT performed_at FROM predictions")
    with pytest.raises(MigrationError, match="view recent depends on column"):
        migrate_engine(target)


def test_two_adoptions_at_once_divide_the_durations_once(target: Engine, connect: Connect) -> None:
    by_our_builder(target, "naive")
    fill_predecessor(target)
    with ThreadPoolExecutor(2) as pool:
        with target.begin() as connection:
            take(connection, AdvisoryLock.MIGRATE)
            url = target.url.render_as_string(hide_password=False)
            started = [pool.submit(migrate_engine, connect(url)) for _ in range(2)]
            wait_until(lambda: waiting_for_locks(target) == 2)
        done = [future.result(timeout=60) for future in started]
    assert sorted("adopted" in line for line in done) == [False, True]
    assert set(fetch(target, "SELECT exec_time_ms FROM predictions")) == {(12.345,)}
    assert len(fetch(target, "SELECT id FROM predictions")) == sum(t == "predictions" for t, _ in PREDECESSOR_ROWS)
