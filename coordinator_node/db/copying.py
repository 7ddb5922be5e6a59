"""Many rows at once, by COPY: about a third of the time that INSERT takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import psycopg
from psycopg import sql
from sqlmodel import Session


def copy_rows(session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Append rows to a table within the session's transaction; what was flushed before is seen, nothing is committed.

    Args:
        session: whose transaction it is part of.
        table: the table's name.
        columns: the columns that each row gives, in its order; JSON as text. The others get their defaults.
        rows: may be a generator: the server works while it goes on.

    Raises:
        psycopg.Error: the server refuses a row; the transaction is void then.
    """
    connection = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
