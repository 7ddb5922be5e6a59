"""backup and restore on real databases: everything comes back equal, and the stages go on where they were."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING

import builders
import pytest
from builders import at, one, rows
from db_cases import fill_predecessor, make_predecessor
from evidence_cases import Competition
from invariants import broken_log_rules
from sqlalchemy import Engine, create_engine, text
from sqlmodel import Session

from coordinator_node.cli.backup import script
from coordinator_node.cli.backup.programs import Program, ProgramError, connection_of, find_program
from coordinator_node.cli.main import run
from coordinator_node.db.contents import read_contents
from coordinator_node.db.migrations import head_revision
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.local.postgres_binaries import wheel_programs
from coordinator_node.runtime.heartbeat import Heartbeat
from coordinator_node.services.checkpoint import CheckpointStage
from coordinator_node.services.score import ScoreStage
from coordinator_node.services.snapshot import SnapshotStage

if TYPE_CHECKING:
    from conftest import (
        Databases,  # several folders have a module of this name, so that only pytest finds the right one
    )

Connect = Callable[[str], Engine]
Command = Callable[..., tuple[int, str, str]]
RESULTS = "SELECT prediction_id, result_jsonb, success, generation FROM scores ORDER BY 1, 4"
PAID = "SELECT period_start, period_end, status, entries_jsonb FROM checkpoints ORDER BY 1"
MOVE = text("UPDATE checkpoints SET status = 'SUBMITTED', tx_hash = 'tx' WHERE period_start = :start")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `coordinator-node` on a database; gives exit code, output and errors."""
    programs = wheel_programs()
    assert programs is not None
    # Those of the machine may be of any version.
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def ended(url: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setattr(sys, "argv", ["coordinator-node", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            run()
        written = capfd.readouterr()
        return int(exit_.value.code or 0), written.out, written.err

    return ended


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return tmp_path / "competition.dump"


def everything(engine: Engine) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with engine.connect() as connection:
        tables = read_contents(connection).tables
        return {name: sorted(connection.execute(text(f"SELECT t::text FROM {name} t")).scalars()) for name in tables}


def go_on(engine: Engine, competition: Competition) -> None:
    """What workers do with a database in which a competition runs."""
    made = (engine, competition.config, competition.settings)
    score, snapshots, checkpoints = ScoreStage(*made), SnapshotStage(*made), CheckpointStage(*made)
    for second in range(215, 460, 60):
        score.run_once(at(second))
        snapshots.run_once(at(second), competition.fence)
    checkpoints.run_once(at(500), competition.fence)


def test_a_restored_database_is_equal_and_its_stages_go_on(
    engine: Engine, database_url: str, empty_database_url: str, connect: Connect, command: Command, dump: Path
) -> None:
    competition = Competition(engine)
    for number in range(9):
        competition.slot(number)
    for second in (95, 155):
        competition.count(second)
    assert competition.check_point(200) == 1
    with engine.begin() as connection:
        assert connection.execute(MOVE, {"start": at(0)}).rowcount == 1
        # What an operator keeps in the same database belongs to it too.
        connection.execute(text("""CREATE TABLE "Desk notes" (id serial PRIMARY KEY, note text)"""))
        connection.execute(text("""INSERT INTO "Desk notes" (note) VALUES ('a'), ('b')"""))

    code, output, errors = command(database_url, "backup", dump)
    assert (code, errors) == (0, "")
    assert f"revision {head_revision()}" in output
    assert sorted(path.name for path in dump.parent.iterdir()) == [dump.name, f"{dump.name}.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in dump.parent.iterdir()} == {0o600}
    assert "merkle_cycles" in json.loads(dump.with_name(f"{dump.name}.json").read_text())["contents"]["chain_heads"]

    code, output, errors = command(empty_database_url, "restore", dump)
    assert (code, errors) == (0, "")
    assert "restored and checked" in output
    restored = connect(empty_database_url)
    assert everything(restored) == everything(engine)

    for each in (engine, restored):
        go_on(each, competition)
        assert broken_log_rules(each) == []
        assert one(each, "SELECT count(*) FROM predictions WHERE status <> 'SCORED'") == 0
    assert rows(restored, RESULTS) == rows(engine, RESULTS)
    assert rows(restored, PAID) == rows(engine, PAID)
    assert len(rows(restored, PAID)) > 1
    with restored.begin() as connection:
        # The triggers are there, and sequences give numbers that are free.
        connection.execute(text("UPDATE checkpoints SET status = 'CLAIMABLE' WHERE status = 'SUBMITTED'"))
        connection.execute(text("""INSERT INTO "Desk notes" (note) VALUES ('c')"""))
    assert one(restored, "SELECT array_agg(to_status ORDER BY id) FROM checkpoint_moves") == ["SUBMITTED", "CLAIMABLE"]


def test_what_is_written_meanwhile_is_in_neither_the_dump_nor_its_record(
    engine: Engine,
    database_url: str,
    empty_database_url: str,
    connect: Connect,
    command: Command,
    dump: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Session(engine) as session:
        builders.model(session, "before")
        session.commit()

    def slow_read(connection: object) -> object:
        found = read_contents(connection)  # type: ignore[arg-type] # handed through
        with Session(engine) as session:
            builders.model(session, "meanwhile")
            session.commit()
        return found

    monkeypatch.setattr("coordinator_node.cli.backup.dump.read_contents", slow_read)
    assert command(database_url, "backup", dump)[0] == 0
    assert command(empty_database_url, "restore", dump)[0] == 0
    assert rows(connect(empty_database_url), "SELECT id FROM models") == [{"id": "before"}]


def test_a_database_of_0_1_84_is_backed_up_before_it_is_migrated(
    empty_database_url: str, connect: Connect, command: Command, dump: Path, databases: Databases
) -> None:
    older = connect(empty_database_url)
    make_predecessor(older, naive=True)
    fill_predecessor(older)
    assert command(empty_database_url, "backup", dump)[0] == 0
    with databases.fresh() as url:
        code, output, _ = command(url, "restore", dump)
        assert code == 0
        assert "run `coordinator-node migrate`" in output
        assert everything(connect(url)) == everything(older)
        assert command(url, "migrate")[0] == 0


def test_a_schema_that_this_version_does_not_know_is_not_said_to_be_migrated(
    engine: Engine, database_url: str, empty_database_url: str, command: Command, dump: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9f3a'"))
    assert command(database_url, "backup", dump)[0] == 0
    code, output, _ = command(empty_database_url, "restore", dump)
    assert code == 0
    assert "the schema is at revision 9f3a" in output
    assert f"run the workers of version {version('coordinator-node')}" in output
    assert "migrate" not in output


def test_a_server_that_is_older_than_pg_restore_is_not_asked_for_a_setting_that_it_does_not_know(
    engine: Engine,
    database_url: str,
    empty_database_url: str,
    connect: Connect,
    command: Command,
    dump: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = "SET transaction_timeout = 0;"
    with engine.begin() as connection:
        # What looks like it, and is a row.
        connection.execute(text("CREATE TABLE notes AS SELECT CAST(:note AS text) AS note"), {"note": setting})
    assert command(database_url, "backup", dump)[0] == 0

    told = io.BytesIO()
    monkeypatch.setattr(script, "_hand_over", copying(told, script._hand_over))
    monkeypatch.setattr("coordinator_node.cli.backup.restore.needs_script", lambda *_: True)
    for options in ((), ("--replace",)):
        assert command(empty_database_url, "restore", dump, *options)[0] == 0
        assert everything(connect(empty_database_url)) == everything(engine)
        assert told.getvalue().decode().splitlines().count(setting) == 1  # the row
        told.seek(0)
        told.truncate()

    restored = connect(empty_database_url)
    with restored.begin() as connection:
        connection.execute(text("CREATE VIEW newest AS SELECT max(created_at) FROM models"))
        connection.execute(text("DELETE FROM notes"))
    code, _, errors = command(empty_database_url, "restore", dump, "--replace")
    assert code == 1
    assert "nothing was restored, and the database is as it was" in errors
    assert "newest" in errors
    assert one(restored, "SELECT count(*) FROM notes") == 0


def copying(told: io.BytesIO, hand_over: Callable[..., None]) -> Callable[..., None]:
    """Hands over, and keeps what psql was given."""

    class Both:
        def __init__(self, psql: IO[bytes]) -> None:
            self.psql = psql

        def write(self, data: bytes) -> int:
            told.write(data)
            return self.psql.write(data)

        def __enter__(self) -> Both:
            return self

        def __exit__(self, *_: object) -> None:
            self.psql.close()

    return lambda script_, psql: hand_over(script_, Both(psql))


def test_a_script_that_breaks_off_leaves_nothing_behind(
    engine: Engine, database_url: str, empty_database_url: str, connect: Connect, command: Command, dump: Path
) -> None:
    assert command(database_url, "backup", dump)[0] == 0
    whole = find_program("pg_restore", 14)
    breaking = dump.with_name("pg_restore")
    breaking.write_text(f'#!/bin/sh\n"{whole.path}" "$@" | head -c 20000\necho broke >&2\nexit 1\n')
    breaking.chmod(0o755)
    target = connect(empty_database_url)
    with pytest.raises(ProgramError, match="broke"):
        script.restore_by_script(Program(breaking, whole.version), target, dump, "--single-transaction")
    assert everything(target) == {}


@pytest.mark.parametrize(
    ("program", "server", "needed"), [(18, 16, True), (17, 14, True), (18, 17, False), (15, 15, False)]
)
def test_a_script_is_needed_where_only_the_program_knows_the_setting(program: int, server: int, needed: bool) -> None:
    assert script.needs_script(Program(Path("pg_restore"), program), server) is needed


def test_a_file_that_cannot_be_read_is_said(
    engine: Engine, database_url: str, empty_database_url: str, command: Command, dump: Path
) -> None:
    assert command(database_url, "backup", dump)[0] == 0
    record = dump.with_name(f"{dump.name}.json")
    record.unlink()
    record.mkdir()
    code, _, errors = command(empty_database_url, "restore", dump)
    assert code == 2
    assert f"{record} cannot be read" in errors
    assert "Traceback" not in errors


def test_a_database_that_holds_something_is_written_over_only_on_request(
    engine: Engine, database_url: str, command: Command, dump: Path
) -> None:
    with Session(engine) as session:
        builders.model(session, "kept")
        session.commit()
    assert command(database_url, "backup", dump)[0] == 0
    with engine.begin() as connection:
        connection.execute(text("UPDATE models SET id = 'changed'"))
        connection.execute(text("CREATE TABLE notes (id int)"))
    changed = everything(engine)

    code, _, errors = command(database_url, "restore", dump)
    assert code == 2
    assert "the database is not empty" in errors
    assert "--replace" in errors
    assert everything(engine) == changed

    heart = Heartbeat(engine, "score")
    heart.beat()
    code, _, errors = command(database_url, "restore", dump, "--replace")
    assert code == 2
    assert f"workers run on the database, {heart.worker_id}: end them first" in errors
    heart.remove()

    # Something of another's that hangs on a table of ours: nothing is done, rather than half of it.
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW newest AS SELECT max(created_at) FROM models"))
    code, _, errors = command(database_url, "restore", dump, "--replace")
    assert code == 1
    assert "nothing was restored, and the database is as it was" in errors
    assert "newest" in errors
    assert everything(engine) == changed

    with engine.begin() as connection:
        connection.execute(text("DROP VIEW newest"))
    assert command(database_url, "restore", dump, "--replace")[0] == 0
    assert rows(engine, "SELECT id FROM models") == [{"id": "kept"}]
    assert one(engine, "SELECT count(*) FROM notes") == 0


def test_a_dump_that_is_not_whole_is_refused_before_anything_is_done(
    engine: Engine, database_url: str, empty_database_url: str, connect: Connect, command: Command, dump: Path
) -> None:
    assert command(database_url, "backup", dump)[0] == 0
    whole = dump.read_bytes()
    dump.write_bytes(whole[:-100])
    code, _, errors = command(empty_database_url, "restore", dump)
    assert code == 1
    assert f"{dump} is not the file that was written" in errors
    record = dump.with_name(f"{dump.name}.json")
    record.unlink()
    code, _, errors = command(empty_database_url, "restore", dump)
    assert code == 2
    assert f"{record} is missing" in errors
    assert everything(connect(empty_database_url)) == {}


def test_rows_that_did_not_come_back_are_told(
    engine: Engine, database_url: str, empty_database_url: str, command: Command, dump: Path
) -> None:
    assert command(database_url, "backup", dump)[0] == 0
    record = dump.with_name(f"{dump.name}.json")
    held = json.loads(record.read_text())
    held["contents"]["tables"]["public.models"] = 3
    held["contents"]["sequences"]["public.checkpoint_moves_id_seq"] = 7
    held["contents"]["chain_heads"]["merkle_cycles"] = [4, "ab"]
    record.write_text(json.dumps(held))
    code, _, errors = command(empty_database_url, "restore", dump)
    assert code == 1
    assert "public.models has 0 rows and not 3" in errors
    assert "sequence public.checkpoint_moves_id_seq is at None and not at 7" in errors
    assert "chain merkle_cycles ends with None and not (4, 'ab')" in errors


def test_a_backup_never_writes_over_a_file_and_leaves_nothing_behind(
    engine: Engine, database_url: str, command: Command, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump.write_text("an older one")
    code, _, errors = command(database_url, "backup", dump)
    assert code == 2
    assert f"{dump} is there already" in errors
    assert dump.read_text() == "an older one"
    dump.unlink()
    code, _, errors = command(database_url, "backup", dump.parent / "none" / "x.dump")
    assert code == 2
    assert "is no folder" in errors
    monkeypatch.setattr("coordinator_node.cli.backup.dump.LOCK_WAIT", "soon")
    code, _, errors = command(database_url, "backup", dump)
    assert code == 1
    assert "no backup was made: pg_dump failed" in errors
    assert list(dump.parent.iterdir()) == []


def fake(folder: Path, version: int) -> Path:
    folder.mkdir()
    program = folder / "pg_dump"
    program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}.4 (Debian)'\n")
    program.chmod(0o755)
    return program


def test_the_program_on_the_path_is_used_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = wheel_programs()
    assert programs is not None
    ours = find_program("pg_dump", 14)
    older = fake(tmp_path / "older", 13)
    monkeypatch.setenv("PATH", str(older.parent))
    assert find_program("pg_dump", 13).path == older
    assert find_program("pg_dump", 14).path == programs / "pg_dump"
    monkeypatch.setattr("coordinator_node.cli.backup.programs.wheel_programs", lambda: None)
    with pytest.raises(ConfigurationError, match=rf"Postgres {ours.version}.*{older} is of 13: install"):
        find_program("pg_dump", ours.version)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"there is none: install.*postgresql-client-18"):
        find_program("pg_dump", 18)


@pytest.mark.parametrize("spelling", ["u:pa%20ss@h:5433/d?sslmode=require", "u@h:5433/d?password=pa%20ss"])
def test_no_program_is_given_a_password_among_its_arguments(spelling: str) -> None:
    engine = create_engine(f"postgresql+psycopg://{spelling}")
    address, secrets = connection_of(engine)
    assert "ss" not in address.replace("sslmode", "")
    assert "host=h" in address
    assert "port=5433" in address
    assert secrets == {"PGPASSWORD": "pa ss"}
