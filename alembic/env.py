"""Runs the migrations on the connection that coordinator_node.db.migrations gives, or on the environment's database.

A given connection is inside a transaction, which its owner commits. Without one (the `alembic` command) the migrations
run in a transaction of their own, and `alembic revision --autogenerate` compares the tables of the engine only.
"""

from __future__ import annotations

from sqlalchemy import Connection
from sqlmodel import SQLModel

from alembic import context
from coordinator_node.config.settings import load_settings
from coordinator_node.db import tables  # noqa: F401 - fills SQLModel.metadata
from coordinator_node.db.engine import engine_from


def is_ours(name: str | None, kind: str, parents: object) -> bool:
    """Whether autogenerate looks at it: a database may hold tables of others, which stay as they are."""
    return kind != "table" or name in SQLModel.metadata.tables


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        compare_server_default=True,
        include_name=is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("these migrations look at the database they change: run them without --sql")

given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = engine_from(load_settings(), "coordinator-node alembic")
    with engine.connect() as connection:
        run(connection)
    engine.dispose()
