"""What the statements of a pass cost: each is explained, with its real parameters, just before it is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event, text

BIG_ROWS = 1000
_BIG_TABLES = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > :rows")
_EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


@dataclass(frozen=True)
class Access:
    """How one node of a plan reads a table: `rows` are those it looked at, kept or not."""

    kind: str
    table: str
    index: str | None
    rows: int


@dataclass(frozen=True)
class Explained:
    """One execution of a statement: its accesses to big tables, and the pages (of 8 kB) that it looked at."""

    statement: str
    accesses: tuple[Access, ...]
    pages: int

    @property
    def rows(self) -> int:
        """The rows of big tables that it looked at."""
        return sum(access.rows for access in self.accesses)

    @property
    def scans(self) -> list[Access]:
        """Big tables that it read from end to end."""
        return [access for access in self.accesses if access.kind == "Seq Scan"]

    def __str__(self) -> str:
        ways = ", ".join(f"{a.kind} of {a.table} by {a.index}: {a.rows} rows" for a in self.accesses)
        return f"{self.pages} pages; {ways}\n    {self.statement}"


class Plans:
    """Explains what an engine executes while a `recorded` block runs.

    A table is big that has more than BIG_ROWS rows when the object is made, as ANALYZE counted them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with engine.connect() as connection:
            self.big = set(connection.execute(_BIG_TABLES, {"rows": BIG_ROWS}).scalars())

    @contextmanager
    def recorded(self) -> Iterator[list[Explained]]:
        """All that the engine executes in any thread, in order; COPY has no plan and is left out."""
        found: list[Explained] = []

        def explain(
            connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
        ) -> None:
            if statement.lstrip().upper().startswith(_EXPLAINED):
                found.append(self._explained(connection, statement, parameters[0] if many else parameters))

        event.listen(self._engine, "before_cursor_execute", explain)
        try:
            yield found
        finally:
            event.remove(self._engine, "before_cursor_execute", explain)

    def _explained(self, connection: Connection, statement: str, parameters: Any) -> Explained:
        # A cursor below SQLAlchemy, so that this is not explained in its turn.
        with connection.connection.driver_connection.cursor() as cursor:
            cursor.execute("SAVEPOINT explained")
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters)
            (plan,) = cursor.fetchone()[0]
            cursor.execute("ROLLBACK TO SAVEPOINT explained; RELEASE SAVEPOINT explained")
        root = plan["Plan"]
        accesses = tuple(access for node in _nodes(root) if (access := _access(node)) and access.table in self.big)
        return Explained(" ".join(statement.split()), accesses, root["Shared Hit Blocks"] + root["Shared Read Blocks"])


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)


def _access(node: Mapping[str, Any]) -> Access | None:
    kind, table = node["Node Type"], node.get("Relation Name")
    if table is None or "Scan" not in kind:
        return None
    left_out = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    below = next(iter(node.get("Plans", ())), {})
    index = node.get("Index Name") or below.get("Index Name")
    return Access(kind, table, index, round((node["Actual Rows"] + left_out) * node["Actual Loops"]))
