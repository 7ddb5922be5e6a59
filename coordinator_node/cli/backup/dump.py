"""A whole database into a file, with a record of what it holds, both of one snapshot."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import typer
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from coordinator_node.cli.backup.programs import ProgramError, find_program, run_program
from coordinator_node.cli.backup.record import BackupRecord, digest_of, record_of
from coordinator_node.config.settings import load_settings
from coordinator_node.db.contents import read_contents
from coordinator_node.db.engine import engine_from, lift_time_limits
from coordinator_node.db.failures import one_line
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.times import utc_now

# A dump waits so long for a table that a migration holds.
LOCK_WAIT = "60s"


def run_backup(target: Path) -> int:
    """Write the dump and, beside it, its record; returns the exit code.

    Args:
        target: the dump's file, which must not be there yet. It holds all that the database does: only its owner may
            read it.

    Raises:
        ConfigurationError: a setting cannot be, there is no pg_dump that fits, or the file cannot be written.
    """
    _check_target(target)
    engine = engine_from(load_settings(), "coordinator-node backup")
    try:
        record = _back_up(engine, target)
    except DBAPIError as error:
        return _failed(one_line(error))
    except ProgramError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{target} was not written: {error.strerror or error}")
    finally:
        engine.dispose()
    held = record.contents
    typer.echo(
        f"{target}: {len(held.tables)} tables, {held.rows:,} rows, {record.size_bytes:,} bytes, schema at revision"
        f" {held.revision or 'none'}; keep {record_of(target).name} with it"
    )
    return 0


def _check_target(target: Path) -> None:
    if not target.absolute().parent.is_dir():
        raise ConfigurationError(f"{target.absolute().parent} is no folder: make it first")
    for path in (target, record_of(target)):
        if path.exists():
            raise ConfigurationError(f"{path} is there already and stays as it is: choose another name")


def _back_up(engine: Engine, target: Path) -> BackupRecord:
    with _snapshot(engine) as connection:
        server = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
        program = find_program("pg_dump", server)
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        made_at, contents = utc_now(), read_contents(connection)
        # Beside its place, so that the last step is one that happens whole or not at all.
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.absolute().parent) as folder:
            dump = Path(folder) / target.name
            arguments = ("--format=custom", f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_WAIT}")
            run_program(program, engine, *arguments, f"--file={dump}")
            record = BackupRecord(
                made_at=made_at,
                engine_version=version("coordinator-node"),
                server_version=server,
                program_version=program.version,
                size_bytes=dump.stat().st_size,
                sha256=digest_of(dump),
                contents=contents,
            )
            record_of(dump).write_text(record.model_dump_json(indent=2))
            # The dump last: where there is one, its record is there too.
            for written, place in ((record_of(dump), record_of(target)), (dump, target)):
                _make_lasting(written)
                written.rename(place)
    return record


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one moment of the database, for as long as it takes."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        # It lies idle while pg_dump works.
        lift_time_limits(connection)
        yield connection


def _make_lasting(path: Path) -> None:
    path.chmod(0o600)
    with path.open("rb") as opened:
        os.fsync(opened.fileno())


def _failed(reason: str) -> int:
    typer.echo(f"no backup was made: {reason}", err=True)
    return 1
