"""What a report's statement answers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Executable

Record = dict[str, Any]
"""One row, by the names of the wire."""


def fetch(connection: Connection, statement: Executable, values: Record | None = None) -> list[Record]:
    """Every row of a statement, in its order."""
    result = connection.execute(statement, values)
    names = tuple(result.keys())
    # Of thousands of rows, SQLAlchemy's own mappings take several times as long to become dicts.
    return [dict(zip(names, row, strict=True)) for row in result]
