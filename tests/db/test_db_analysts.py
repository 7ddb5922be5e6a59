"""The role that docs/operate.md makes for analysts: reads all, also what comes later, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from db_cases import fetch, fill_predecessor
from sqlalchemy import Engine, text
from sqlmodel import SQLModel

PAGE = Path(__file__).parents[2] / "docs" / "operate.md"
NEVER = [
    "INSERT INTO leaderboards (id) VALUES ('x')",
    "UPDATE models SET name = 'x'",
    "DELETE FROM checkpoints",
    "TRUNCATE scores",
    "CREATE TABLE public.mine (id int)",
    "DROP TABLE feed_records",
]


@pytest.fixture
def analyst(engine: Engine, connect: Callable[[str], Engine]) -> Iterator[Engine]:
    [script] = re.findall(r"## Analysts.*?```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with engine.begin() as connection:
        connection.execute(text(script))
    made = connect(engine.url.set(username="analyst").render_as_string(hide_password=False))
    yield made
    made.dispose()
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY analyst"))
        connection.execute(text("DROP ROLE analyst"))


def test_an_analyst_reads_everything_and_changes_nothing(engine: Engine, analyst: Engine) -> None:
    fill_predecessor(engine)
    for table in [*SQLModel.metadata.tables, "alembic_version"]:
        assert fetch(analyst, f"SELECT count(*) FROM {table}") == fetch(engine, f"SELECT count(*) FROM {table}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE of_a_later_migration AS SELECT 1 AS id"))
    assert fetch(analyst, "SELECT id FROM of_a_later_migration") == [(1,)]
    assert fetch(analyst, "SHOW statement_timeout") == [("1min",)]
    for statement in NEVER:
        for settings in ("SELECT 1", "SET TRANSACTION READ WRITE"):
            with analyst.connect() as connection:
                connection.execute(text(settings))
                with pytest.raises(Exception, match=r"read-only transaction|permission denied|must be owner"):
                    connection.execute(text(statement))
