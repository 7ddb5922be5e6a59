from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from db_cases import fetch, fill_predecessor, make_predecessor, schema_facts, wait_until, waiting_for_locks
from sqlalchemy import Engine, text

from coordinator_node import config_loader
from coordinator_node.db.advisory import AdvisoryLock, take
from coordinator_node.db.engine import lift_time_limits
from coordinator_node.db.init_db import main, migrate, reset_db
from coordinator_node.db.migrations import head_revision

Connect = Callable[[str], Engine]
ACTIVE = "SELECT id, active FROM scheduled_prediction_configs ORDER BY id"


@pytest.fixture(autouse=True)
def _fresh_config(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CRUNCH_CONFIG_MODULE", raising=False)
    config_loader.reset_cache()
    yield
    config_loader.reset_cache()


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)


def test_the_command_migrates_and_loads_the_schedules(
    empty_database_url: str, connect: Connect, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "coordinator_node.db.init_db"],
        env=os.environ | {"DATABASE_URL": empty_database_url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "made" in done.stdout
    assert "1 active schedule(s)" in done.stdout
    assert fetch(connect(empty_database_url), ACTIVE) == [("BTC-60-every-15s-horizon-60s", True)]


@pytest.mark.usefixtures("wrong_clock")
def test_a_schedule_begins_by_the_databases_clock_where_the_machines_is_wrong(
    empty_database_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, empty_database_url)
    assert main([]) == 0
    begun = "SELECT bool_and(activated_at <= clock_timestamp()) FROM scheduled_prediction_configs"
    assert fetch(connect(empty_database_url), begun) == [(True,)]


def test_of_several_containers_that_start_at_once_one_migrates_and_all_are_content(
    empty_database_url: str, connect: Connect, tmp_path: Path
) -> None:
    engine = connect(empty_database_url)
    make_predecessor(engine, naive=True)
    fill_predecessor(engine)
    command = [str(Path(sys.executable).parent / "coordinator-node"), "migrate"]
    environment = os.environ | {"DATABASE_URL": empty_database_url}
    with engine.begin() as connection:
        # Held until all of them stand at the lock, however long they take to start, so that they do race.
        lift_time_limits(connection)
        take(connection, AdvisoryLock.MIGRATE)
        started = [
            subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(3)
        ]
        wait_until(lambda: waiting_for_locks(engine) == len(started), seconds=60)
    done = [(process.communicate(timeout=60), process.returncode) for process in started]
    assert [(code, errors) for (_, errors), code in done] == [(0, b"")] * len(started)
    assert sorted(b"adopted" in output for (output, _), _ in done) == [False, False, True]
    assert fetch(engine, "SELECT version_num FROM alembic_version") == [(head_revision(),)]
    # Adopting divides by 1,000; twice would divide by a million.
    assert set(fetch(engine, "SELECT exec_time_ms FROM predictions")) == {(12.345,)}
    assert fetch(engine, ACTIVE) == [("old-config", True)]


def test_running_it_again_changes_nothing(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, database_url)
    assert main([]) == 0
    before = fetch(engine, "SELECT * FROM scheduled_prediction_configs")
    assert main([]) == 0
    assert fetch(engine, "SELECT * FROM scheduled_prediction_configs") == before
    assert capsys.readouterr().err == ""


def test_a_schedule_of_0_1_84_is_used_again(
    empty_database_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(empty_database_url)
    make_predecessor(engine, naive=True)
    fill_predecessor(engine)
    use(monkeypatch, empty_database_url)
    assert main([]) == 0
    assert fetch(engine, ACTIVE) == [("old-config", True)]
    assert fetch(engine, "SELECT activated_at IS NOT NULL FROM scheduled_prediction_configs") == [(True,)]


def test_reset_drops_the_rows(engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, database_url)
    fill_predecessor(engine)
    assert main(["--reset"]) == 0
    assert fetch(engine, "SELECT count(*) FROM models") == [(0,)]
    assert fetch(engine, ACTIVE) == [("BTC-60-every-15s-horizon-60s", True)]


def test_migrate_and_reset_db_take_the_database_of_the_environment(
    empty_database_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, empty_database_url)
    assert "made" in migrate()
    engine = connect(empty_database_url)
    fill_predecessor(engine)
    assert "already" in migrate(engine)
    reset_db()
    assert fetch(engine, "SELECT count(*) FROM models") == [(0,)]


def one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> str:
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.endswith("\n")
    assert written.err.count("\n") == 1
    return written.err


def test_a_database_that_does_not_answer_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    use(monkeypatch, f"postgresql://starter:secret@/starter?host={tmp_path}")
    assert main([]) == 1
    said = one_line_on_stderr(capsys)
    assert "the database cannot be reached" in said
    assert "secret" not in said


def test_a_database_that_is_not_recognised_ends_with_2(
    empty_database_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, empty_database_url)
    with connect(empty_database_url).begin() as connection:
        connection.execute(text("CREATE TABLE models (id int)"))
    assert main([]) == 2
    assert "backfill_jobs is missing" in one_line_on_stderr(capsys)


def test_a_wrong_variable_ends_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("POSTGRES_PORT", "many")
    assert main([]) == 2
    assert "POSTGRES_PORT" in one_line_on_stderr(capsys)


def test_a_broken_config_ends_with_2_before_anything_is_dropped(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, database_url)
    fill_predecessor(engine)
    before = schema_facts(engine)
    monkeypatch.setenv("CRUNCH_CONFIG_MODULE", "no_such_module:Config")
    assert main(["--reset"]) == 2
    assert "no_such_module" in one_line_on_stderr(capsys)
    assert schema_facts(engine) == before
    assert fetch(engine, "SELECT count(*) FROM models") == [(1,)]


def test_an_unknown_option_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--rest"])
    assert ended.value.code == 2
    assert "--rest" in capsys.readouterr().err
