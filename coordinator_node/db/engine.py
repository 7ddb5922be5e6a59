"""The engine's connections, and the one place where its transactions commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sqlalchemy import Connection, Engine, create_engine, text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.db.json_text import parse_json
from coordinator_node.runtime.connections import CLIENT_OPTIONS

# On the server's side, so that the locks of a process that was stopped or cut off do not outlast it for long.
SERVER_OPTIONS = {
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15s",
}


# A leader's own work between two statements, such as an operator's metrics over thousands of rows a model.
_TAKE_YOUR_TIME = text("SET LOCAL idle_in_transaction_session_timeout = '10min'")

# By the names that the server knows: transaction_timeout came with Postgres 17.
_NO_LIMITS = text(
    """
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
    """
)


class Fence(Protocol):
    """Something that must still hold when a transaction commits, such as a lease."""

    def check(self, session: Session) -> None:
        """Raise when it no longer holds; the transaction is then rolled back."""


def make_engine(url: str, application_name: str = "coordinator-node") -> Engine:
    """A pool of connections in UTC; a dead one is replaced before it is handed out."""
    options = " ".join(f"-c {name}={value}" for name, value in SERVER_OPTIONS.items())
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=5,
        json_deserializer=parse_json,
        connect_args={
            "application_name": application_name,
            "options": options,
            **CLIENT_OPTIONS,
        },
    )


def engine_from(settings: Settings, application_name: str = "coordinator-node") -> Engine:
    """The engine of the settings' database."""
    return make_engine(settings.sqlalchemy_url, application_name)


def replica_from(settings: Settings, application_name: str = "coordinator-node") -> Engine | None:
    """The engine of the settings' read replica; None where they name none."""
    url = settings.sqlalchemy_read_url
    return make_engine(url, application_name) if url else None


@contextmanager
def transaction(engine: Engine, *fences: Fence) -> Iterator[Session]:
    """One unit of work: commits at the end if every fence holds, rolls back on any error."""
    with Session(engine, expire_on_commit=False) as session:
        yield session
        for fence in fences:
            fence.check(session)
        session.commit()


def allow_long_work(session: Session) -> None:
    """Let the transaction lie idle for minutes while operators' code runs, instead of being ended in between."""
    session.connection().execute(_TAKE_YOUR_TIME)


def lift_time_limits(connection: Connection) -> None:
    """Let the transaction take its time, whatever limits its role or database has: migrations and backups need it."""
    connection.execute(_NO_LIMITS)
