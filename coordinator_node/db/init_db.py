"""`python -m coordinator_node.db.init_db`: brings the database to the newest schema and loads the schedules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from coordinator_node.config.settings import load_settings
from coordinator_node.config_loader import load_config
from coordinator_node.db.engine import engine_from, transaction
from coordinator_node.db.failures import one_line
from coordinator_node.db.migrations import MigrationError, migrate_engine
from coordinator_node.db.schedules import sync_schedules
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.clock import database_time

__all__ = ["main", "migrate", "reset_db"]

DONE, FAILED, WRONG = 0, 1, 2


def migrate(engine: Engine | None = None) -> str:
    """Bring a database to the newest schema; None means the environment's. Several may do so at once.

    Returns:
        One line that says what was done.

    Raises:
        ConfigurationError: the database is not recognised, or the environment is wrong. Nothing was changed.
        MigrationError: a migration failed, or the database does not answer. Nothing was changed.
    """
    return _with_engine(engine, reset=False)


def reset_db(engine: Engine | None = None) -> str:
    """Drop every table of the engine with all rows, and make them anew; otherwise as `migrate`."""
    return _with_engine(engine, reset=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate and load the schedules of the config; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m coordinator_node.db.init_db",
        description="Bring the database to the newest schema and load the schedules of the config.",
    )
    parser.add_argument("--reset", action="store_true", help="drop all tables of the engine first, with all they hold")
    reset = bool(parser.parse_args(arguments).reset)
    try:
        # A config that is broken must stop this before a table is dropped.
        schedules = load_config().scheduled_predictions
        engine = engine_from(load_settings(), "coordinator-node init_db")
        try:
            done = migrate_engine(engine, reset=reset)
            with transaction(engine) as session:
                sync_schedules(session, schedules, database_time(session))
        finally:
            engine.dispose()
    except ConfigurationError as error:
        return _end(WRONG, str(error))
    except MigrationError as error:
        return _end(FAILED, str(error))
    except DBAPIError as error:
        return _end(FAILED, f"the schedules were not loaded: {one_line(error)}")
    active = sum(schedule.active for schedule in schedules)
    sys.stdout.write(f"{done}; {active} active schedule(s)\n")
    return DONE


def _with_engine(engine: Engine | None, *, reset: bool) -> str:
    if engine is not None:
        return migrate_engine(engine, reset=reset)
    own = engine_from(load_settings(), "coordinator-node migrate")
    try:
        return migrate_engine(own, reset=reset)
    finally:
        own.dispose()


def _end(code: int, reason: str) -> int:
    sys.stderr.write(f"{' '.join(reason.split())}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
