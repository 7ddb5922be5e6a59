"""A dump into a database, all of it or nothing, and a look at whether all of it is there."""

from __future__ import annotations

from pathlib import Path

import typer
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from coordinator_node.cli.backup.programs import Program, ProgramError, find_program, run_program
from coordinator_node.cli.backup.record import BackupRecord, digest_of, read_record
from coordinator_node.cli.backup.script import needs_script, restore_by_script
from coordinator_node.config.settings import load_settings
from coordinator_node.db import tables  # noqa: F401 - fills SQLModel.metadata
from coordinator_node.db.contents import differences, has_table, read_contents, table_names
from coordinator_node.db.engine import engine_from, lift_time_limits
from coordinator_node.db.failures import one_line
from coordinator_node.db.migrations import head_revision, knows_revision
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.heartbeat import ALIVE_SECONDS

SHOWN = 5

_ALIVE = text(
    """
    SELECT worker_id FROM worker_heartbeats WHERE beat_at > clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY worker_id
    """
)


class RestoreError(Exception):
    """What was restored is not what was backed up, or cannot be; the message is one line that says what to do."""


def run_restore(dump: Path, *, replace: bool) -> int:
    """Restore a dump into the settings' database and check it; returns the exit code.

    Args:
        dump: what `backup` wrote; its record stands beside it.
        replace: whether the database may hold something; what the dump holds too is then replaced.

    Raises:
        ConfigurationError: a setting cannot be, the dump has no record, the database may not be written over, or there
            is no pg_restore that fits.
    """
    record = read_record(dump)
    engine = engine_from(load_settings(), "coordinator-node restore")
    try:
        _restore(engine, dump, record, replace=replace)
    except DBAPIError as error:
        return _failed(one_line(error))
    except ProgramError as error:
        return _failed(f"nothing was restored, and the database is as it was: {error}")
    except RestoreError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"nothing was restored: {error.filename or dump} cannot be read: {error.strerror or error}")
    finally:
        engine.dispose()
    held = record.contents
    typer.echo(
        f"{len(held.tables)} tables with {held.rows:,} rows were restored and checked, as of {record.made_at:%F %T} UTC"
    )
    if held.revision != head_revision():
        typer.echo(_what_next(record))
    return 0


def _what_next(record: BackupRecord) -> str:
    """What to do with a schema that is not this version's."""
    revision = record.contents.revision
    said = f"the schema is at revision {revision or 'none'}, and this version needs {head_revision()}: "
    if revision is None or knows_revision(revision):
        return said + "run `coordinator-node migrate` before the workers"
    return said + f"run the workers of version {record.engine_version}, which made the backup, or of a newer one"


def _restore(engine: Engine, dump: Path, record: BackupRecord, *, replace: bool) -> None:
    if digest_of(dump) != record.sha256:
        raise RestoreError(f"{dump} is not the file that was written: its SHA-256 differs; take another copy of it")
    with engine.connect() as connection:
        server = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
        program = _fitting_program(server, record)
        _check_target(connection, record, replace=replace)
    arguments = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    arguments += ["--clean", "--if-exists"] if replace else []
    if needs_script(program, server):
        restore_by_script(program, engine, dump, *arguments)
    else:
        run_program(program, engine, *arguments, str(dump))
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        lift_time_limits(connection)
        wrong = differences(record.contents, read_contents(connection))
    if wrong:
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise RestoreError(
            f"the restored database is not what was backed up: {'; '.join(wrong[:SHOWN])}{more}. If a worker ran"
            " meanwhile, end it and restore again with --replace"
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Without figures on the new tables the first queries of the workers would read them in full.
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("ANALYZE"))


def _fitting_program(server: int, record: BackupRecord) -> Program:
    if server < record.server_version:
        raise ConfigurationError(
            f"the dump is of Postgres {record.server_version} and the database's server is {server}: restore into one"
            " that is as new"
        )
    return find_program("pg_restore", record.program_version)


def _check_target(connection: Connection, record: BackupRecord, *, replace: bool) -> None:
    present = table_names(connection)
    if not present:
        return
    if not replace:
        more = f" and {len(present) - SHOWN} more" if len(present) > SHOWN else ""
        raise ConfigurationError(
            f"the database is not empty, it has {', '.join(present[:SHOWN])}{more}: choose an empty one, or let what"
            " the dump holds be replaced with --replace"
        )
    newer = set(present) - set(record.contents.tables)
    if left := sorted(name for name in newer if name.partition(".")[2] in SQLModel.metadata.tables):
        raise ConfigurationError(
            f"the database is of a newer version than the dump, which has no {', '.join(left)}: restore into an empty"
            " database"
        )
    if not has_table(connection, "worker_heartbeats"):
        return
    if alive := list(connection.execute(_ALIVE, {"seconds": ALIVE_SECONDS}).scalars()):
        raise ConfigurationError(f"workers run on the database, {', '.join(alive)}: end them first")


def _failed(reason: str) -> int:
    typer.echo(" ".join(reason.split()), err=True)
    return 1
