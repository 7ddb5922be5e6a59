"""A real Postgres for every test that touches SQL: one server a test process, one fresh database a test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path

import hypothesis
import psycopg
import pytest
from sqlalchemy import Engine, make_url

from coordinator_node.db import session
from coordinator_node.db.engine import make_engine
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.entities import times
from coordinator_node.local.postgres import running_postgres

TEMPLATE = "migrated_template"

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


class Databases:
    """Makes and drops databases on one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._numbers = itertools.count(1)

    def named(self, name: str) -> str:
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def run(self, statement: str) -> None:
        target = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def fresh(self, template: str = "template0") -> Iterator[str]:
        """A database that is dropped at the end, whoever may still be connected."""
        name = f"test_{next(self._numbers)}"
        # Copying the files takes half the time of Postgres's own default, which writes them to its log.
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield self.named(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The test process's own server, with the migrated template in it."""
    # Not in pytest's folder: that is closed to the server's user when root runs the tests.
    with tempfile.TemporaryDirectory(prefix="coordinator-tests-") as folder:
        Path(folder).chmod(0o755)
        with running_postgres(Path(folder) / "postgres") as url:
            made = Databases(url)
            made.run(f"CREATE DATABASE {TEMPLATE}")
            engine = make_engine(made.named(TEMPLATE), "tests template")
            migrate_engine(engine)
            engine.dispose()
            yield made


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A database of the newest schema without rows."""
    with databases.fresh(TEMPLATE) as url:
        yield url


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A database without any table."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's clock is an hour ahead of the database's."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Ahead:
            return super().now(tz) + timedelta(hours=1)

    monkeypatch.setattr(times, "datetime", Ahead)


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run in asyncio, as the engine does."""
    return "asyncio"


@pytest.fixture
def connect() -> Iterator[Callable[[str], Engine]]:
    """Makes engines that are disposed of at the end."""
    engines: list[Engine] = []

    def make(url: str) -> Engine:
        engines.append(make_engine(url, "tests"))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(database_url: str, connect: Callable[[str], Engine]) -> Engine:
    """An engine on a database of the newest schema without rows."""
    return connect(database_url)


@pytest.fixture
def named_by_environment(database_url: str, connect: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is the environment's, so that `create_session` finds it; its connections end with the test."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(session, "_engine", cache(connect))
