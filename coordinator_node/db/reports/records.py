"""What a report's statement answers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Executable

Record = dict[str, Any]
"""One row, by the names of the wire."""


def fetch(connection: Connection, statement: Executable, values: Record | None = None) -> list[Record]:
    """Every row of a statement, in its order."""
    return [dict(row) for row in connection.execute(statement, values).mappings()]
