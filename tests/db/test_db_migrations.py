from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from db_cases import PREDECESSOR_ROWS, fetch, fill_predecessor, insert, schema_facts, wait_until, waiting_for_locks
from sqlalchemy import Engine, text
from sqlmodel import SQLModel

import coordinator_node
from alembic import command
from coordinator_node.db import migrations
from coordinator_node.db.advisory import AdvisoryLock, take
from coordinator_node.db.migrations import MigrationError, alembic_config, migrate_engine, migrations_folder
from coordinator_node.entities.errors import ConfigurationError

Connect = Callable[[str], Engine]


def counts(engine: Engine) -> dict[str, int]:
    return {table: fetch(engine, f"SELECT count(*) FROM {table}")[0][0] for table, _ in PREDECESSOR_ROWS}


def go(engine: Engine, action: Callable[..., None], revision: str) -> None:
    with engine.begin() as connection:
        action(alembic_config(connection), revision)


def test_an_empty_database_gets_exactly_the_tables_of_the_metadata(
    engine: Engine, empty_database_url: str, connect: Connect
) -> None:
    plain = connect(empty_database_url)
    SQLModel.metadata.create_all(plain)
    assert schema_facts(engine) == schema_facts(plain)


def test_alembic_finds_no_difference_between_migrations_and_metadata(engine: Engine) -> None:
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), SQLModel.metadata)
    assert found == []


def test_up_down_up_ends_where_it_began_and_keeps_the_rows(engine: Engine) -> None:
    newest = schema_facts(engine)
    fill_predecessor(engine)
    go(engine, command.downgrade, "0001")
    middle = schema_facts(engine)
    before = counts(engine)
    assert all(before.values())
    go(engine, command.upgrade, "head")
    assert schema_facts(engine) == newest
    go(engine, command.downgrade, "0001")
    assert schema_facts(engine) == middle
    assert counts(engine) == before
    go(engine, command.downgrade, "base")
    assert schema_facts(engine) == {"columns": set(), "constraints": set(), "indexes": set()}
    go(engine, command.upgrade, "head")
    assert schema_facts(engine) == newest


def test_migrating_makes_no_warning(empty_database_url: str, connect: Connect) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        migrate_engine(connect(empty_database_url))
    assert [str(warning.message) for warning in caught] == []


def test_inserts_that_name_only_the_older_columns_succeed(engine: Engine) -> None:
    fill_predecessor(engine)
    assert fetch(engine, "SELECT status FROM inputs") == [("RESOLVED",)]
    assert fetch(engine, "SELECT snapshot_state, generation, snapshot_id FROM scores") == [("COUNTED", None, None)]
    assert set(fetch(engine, "SELECT attempts, slot_id FROM predictions")) == {(0, None)}
    with engine.begin() as connection:  # a second score of one prediction was possible, and is
        row = next(row for table, row in PREDECESSOR_ROWS if table == "scores")
        insert(connection, "scores", row | {"id": "s2"})


def test_a_second_migration_finds_nothing_to_do(engine: Engine) -> None:
    before = schema_facts(engine)
    assert "already" in migrate_engine(engine)
    assert schema_facts(engine) == before


def test_a_database_at_an_earlier_revision_is_upgraded(
    empty_database_url: str, connect: Connect, engine: Engine
) -> None:
    older = connect(empty_database_url)
    go(older, command.upgrade, "0001")
    fill_predecessor(older)
    assert "from revision 0001" in migrate_engine(older)
    assert schema_facts(older) == schema_facts(engine)
    # It is ours: its durations are milliseconds, unlike those of an adopted database.
    assert set(fetch(older, "SELECT exec_time_ms FROM predictions")) == {(12345.0,)}


def test_several_at_once_wait_for_one_another_and_only_one_works(empty_database_url: str, connect: Connect) -> None:
    target = connect(empty_database_url)
    with ThreadPoolExecutor(3) as pool:
        with target.begin() as connection:
            take(connection, AdvisoryLock.MIGRATE)
            started = [pool.submit(migrate_engine, connect(empty_database_url)) for _ in range(3)]
            wait_until(lambda: waiting_for_locks(target) == 3)
            assert schema_facts(target)["columns"] == set()
        done = sorted(future.result(timeout=60) for future in started)
    assert [("made" in line, "already" in line) for line in done].count((True, False)) == 1
    assert [("made" in line, "already" in line) for line in done].count((False, True)) == 2


def test_one_that_waits_is_not_ended_by_the_limits_of_its_role_or_database(
    empty_database_url: str, connect: Connect, engine: Engine
) -> None:
    target = connect(empty_database_url)
    name = target.url.database
    with target.connect() as holding:
        for limit in ("statement_timeout", "lock_timeout", "transaction_timeout"):
            holding.execute(text(f"ALTER DATABASE {name} SET {limit} = '100ms'"))
        holding.commit()
        # Of another database, whose sessions have no such limits.
        waited = f"""
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = '{name}' AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > '200ms'
        """
        with ThreadPoolExecutor(1) as pool:
            take(holding, AdvisoryLock.MIGRATE)
            started = pool.submit(migrate_engine, connect(empty_database_url))
            wait_until(lambda: started.done() or fetch(engine, waited)[0][0] == 1)
            holding.rollback()
            assert "made" in started.result(timeout=60)


def test_a_stranger_s_revision_is_refused(empty_database_url: str, connect: Connect) -> None:
    target = connect(empty_database_url)
    with target.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('9f3a')"))
    with pytest.raises(ConfigurationError, match=r"alembic_version says 9f3a.*knows 0001, 0002"):
        migrate_engine(target)
    assert schema_facts(target)["columns"] == set()


def test_an_older_server_is_refused(empty_database_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "OLDEST_POSTGRES", 99)
    with pytest.raises(ConfigurationError, match=r"server is Postgres \d+.*use 99 or later"):
        migrate_engine(connect(empty_database_url))


def test_a_table_that_a_session_holds_is_named_and_nothing_changes(
    engine: Engine, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(engine, command.downgrade, "0001")
    before = schema_facts(engine)
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "50ms")
    with engine.begin() as connection:
        connection.execute(text("SELECT count(*) FROM predictions"))
        with pytest.raises(MigrationError, match=r"nothing was changed.*stop the workers"):
            migrate_engine(connect(engine.url.render_as_string(hide_password=False)))
    assert schema_facts(engine) == before


def test_reset_drops_our_rows_and_leaves_the_tables_of_others(engine: Engine) -> None:
    before = schema_facts(engine)
    fill_predecessor(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes AS SELECT id AS model FROM models"))
        connection.execute(text("CREATE VIEW newest AS SELECT max(created_at) AS at FROM models"))
    assert "made" in migrate_engine(engine, reset=True)
    assert not any(counts(engine).values())
    assert fetch(engine, "SELECT model FROM notes") == [("m1",)]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE notes"))
    assert schema_facts(engine) == before


def test_the_scripts_are_found_in_a_checkout_and_in_an_installed_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (migrations_folder() / "versions").is_dir()
    package = tmp_path / "site-packages" / "coordinator_node"
    package.mkdir(parents=True)
    monkeypatch.setattr(coordinator_node, "__file__", str(package / "__init__.py"))
    with pytest.raises(ConfigurationError, match="install coordinator-node anew"):
        migrations_folder()
    for folder in (package.parent / "alembic", package / "_alembic"):
        folder.mkdir()
        (folder / "env.py").touch()
        assert migrations_folder() == folder
