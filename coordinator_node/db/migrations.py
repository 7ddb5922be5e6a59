"""Brings a database to the newest schema, in one transaction: all of it, or nothing."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

import coordinator_node
from alembic import command
from coordinator_node.db import adoption, tables  # noqa: F401 - `tables` fills SQLModel.metadata
from coordinator_node.db.advisory import AdvisoryLock, take
from coordinator_node.db.engine import lift_time_limits
from coordinator_node.db.failures import LOCK_NOT_AVAILABLE, one_line, reached_server, sqlstate
from coordinator_node.entities.errors import ConfigurationError

OLDEST_POSTGRES = 14
FIRST_REVISION = "0001"
VERSION_TABLE = "alembic_version"
# Long enough for a worker's transaction to end, short enough that a forgotten session is named and not waited for.
LOCK_TIMEOUT = "60s"


class MigrationError(Exception):
    """A migration failed; the database is as it was. The message is one line: what failed, and what to do."""


def migrations_folder() -> Path:
    """Where the Alembic scripts are: inside the package of an installed wheel, beside it in a checkout.

    Raises:
        ConfigurationError: in neither, because the installation is not whole.
    """
    package = Path(coordinator_node.__file__).parent
    for folder in (package / "_alembic", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigurationError(f"no migrations in {package} or beside it: install coordinator-node anew")


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's view of the migrations; what runs them does so on `connection`, whose owner commits."""
    # No path separator is in use: one folder of scripts, given here and not in a file.
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def migrate_engine(engine: Engine, *, reset: bool = False) -> str:
    """Bring the engine's database to the newest schema; several may do so at once, one after another.

    An empty database is made, one of an earlier revision upgraded, one of version 0.1.84 adopted. All of it is one
    transaction.

    Args:
        engine: the database.
        reset: drop every table of the engine first, and everything in them. Tables of others stay.

    Returns:
        One line that says what was done.

    Raises:
        ConfigurationError: the database is not one that can be migrated; the message names what was not recognised.
        MigrationError: a migration failed. Nothing was changed.
    """
    try:
        with engine.begin() as connection:
            _check_server(connection)
            # Of several that start at once, all but one wait as long as that one works.
            lift_time_limits(connection)
            take(connection, AdvisoryLock.MIGRATE)
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            if reset:
                _drop_ours(connection)
            return _migrate(connection)
    except DBAPIError as error:
        raise MigrationError(_failure(error)) from error


def schema_revisions(engine: Engine) -> tuple[str | None, str]:
    """The revision that a database is at, None where it says none, and the newest one. Changes nothing.

    Raises:
        ConfigurationError: it is at a revision that this version does not know.
        DBAPIError: it does not answer.
    """
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
        return _current_revision(connection, scripts), str(scripts.get_current_head())


def _check_server(connection: Connection) -> None:
    number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if number < OLDEST_POSTGRES * 10_000:
        version = connection.execute(text("SHOW server_version")).scalar_one()
        raise ConfigurationError(f"the database server is Postgres {version}: use {OLDEST_POSTGRES} or later")


def _migrate(connection: Connection) -> str:
    config = alembic_config(connection)
    scripts = ScriptDirectory.from_config(config)
    current, head = _current_revision(connection, scripts), scripts.get_current_head()
    if current == head:
        return f"the schema is at revision {head} already"
    if current is not None:
        done = f"the schema was upgraded from revision {current} to {head}"
    else:
        predecessor = predecessor_schema(scripts)
        if adoption.is_predecessor(connection, predecessor, SQLModel.metadata):
            adoption.convert(connection, predecessor)
            command.stamp(config, FIRST_REVISION)
            done = f"a database of version 0.1.84 was adopted and upgraded to revision {head}"
        else:
            done = f"the schema was made, at revision {head}"
    command.upgrade(config, "head")
    return done


def head_revision() -> str:
    """The newest revision that this version knows."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise ConfigurationError(f"no migrations in {migrations_folder()}: install coordinator-node anew")
    return head


def knows_revision(revision: str) -> bool:
    """Whether a schema's revision is one of this version's or of an older one's."""
    return revision in _known(ScriptDirectory.from_config(alembic_config()))


def predecessor_schema(scripts: ScriptDirectory | None = None) -> MetaData:
    """The tables of version 0.1.84, as the first migration states them."""
    scripts = scripts or ScriptDirectory.from_config(alembic_config())
    schema = scripts.get_revision(FIRST_REVISION).module.SCHEMA
    if not isinstance(schema, MetaData):  # the attribute of a module that is loaded by path has no static type
        raise TypeError(f"SCHEMA of migration {FIRST_REVISION} is a {type(schema).__name__}")
    return schema


def _current_revision(connection: Connection, scripts: ScriptDirectory) -> str | None:
    """The revision that the database says it is at; None where it says none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    # Written out, because the table is Alembic's and has no class here.
    found = list(connection.execute(text("SELECT version_num FROM alembic_version ORDER BY version_num")).scalars())
    if not found:
        return None
    known = _known(scripts)
    if len(found) > 1 or found[0] not in known:
        raise ConfigurationError(
            f"the table alembic_version says {', '.join(found)}, and this version knows {', '.join(sorted(known))}:"
            " run the version of coordinator-node that made the database, or one newer than it, or choose an empty"
            " database. Nothing was changed."
        )
    return str(found[0])


def _known(scripts: ScriptDirectory) -> set[str]:
    return {str(script.revision) for script in scripts.walk_revisions()}


def _drop_ours(connection: Connection) -> None:
    names = {*SQLModel.metadata.tables, *predecessor_schema().tables, VERSION_TABLE}
    quote = connection.dialect.identifier_preparer.quote
    listed = ", ".join(quote(name) for name in sorted(names))
    connection.execute(text(f"DROP TABLE IF EXISTS {listed} CASCADE"))


def _failure(error: DBAPIError) -> str:
    said = one_line(error)
    if not reached_server(error):
        return said
    if sqlstate(error) == LOCK_NOT_AVAILABLE:
        said += f"; another session held a table for {LOCK_TIMEOUT}: stop the workers and end open transactions"
    return f"the migration failed and nothing was changed: {said}"
