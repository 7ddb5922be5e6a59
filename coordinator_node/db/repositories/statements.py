"""The statements that all repositories for operators' code share. They commit, unlike the engine's own stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Mapped
from sqlalchemy.sql import ColumnElement
from sqlmodel import Session, SQLModel
from sqlmodel.sql.expression import SelectOfScalar


@contextmanager
def committing(session: Session) -> Iterator[None]:
    """Commits what is done inside; rolls the session back on any error, so that it stays usable."""
    try:
        yield
        session.commit()
    except BaseException:
        session.rollback()
        raise


def upsert(
    session: Session,
    row_class: type[SQLModel],
    rows: Sequence[Mapping[str, Any]],
    *,
    key: Collection[str] = ("id",),
    only_when_new: Collection[str] = (),
    condition: ColumnElement[bool] | None = None,
) -> int:
    """Insert rows, or update those that are there, in batches. Does not commit.

    Args:
        session: the session to write with.
        row_class: the table.
        rows: the values by column, all of the same columns. Of several with one key the last counts. Columns that are
            not among them keep their value in an existing row, and get the server's default in a new one.
        key: the columns of the unique key that tells what is there.
        only_when_new: columns that an existing row keeps.
        condition: an existing row is left as it is where this does not hold.

    Returns:
        How many rows were inserted or updated.
    """
    by_key = {tuple(row[name] for name in key): dict(row) for row in rows}
    if not by_key:
        return 0
    table = table_of(row_class)
    statement = insert(table)
    changed = [name for name in rows[0] if name not in key and name not in only_when_new]
    statement = statement.on_conflict_do_update(
        index_elements=list(key), set_={name: statement.excluded[name] for name in changed}, where=condition
    )
    # RETURNING makes SQLAlchemy send many rows in one statement, and tells how many were written.
    written = session.exec(statement.returning(table.c.id), params=list(by_key.values()))
    return len(written.all())


def newest[R](
    session: Session, query: SelectOfScalar[R], *order: Mapped[Any] | InstrumentedAttribute[Any], limit: int | None
) -> list[R]:
    """The last `limit` rows by `order`, in ascending order; all of them for None."""
    query = query.order_by(*(column.desc() for column in order)).limit(limit)
    return fresh(session, query)[::-1]


def fresh[R](session: Session, query: SelectOfScalar[R]) -> list[R]:
    """The rows as the database has them now, also those that the session has read before."""
    return list(session.exec(query, execution_options={"populate_existing": True}).all())


def table_of(row_class: type[SQLModel]) -> Table:
    """The table behind a row class."""
    table = inspect(row_class).local_table
    if not isinstance(table, Table):
        raise TypeError(f"{row_class.__name__} is not mapped to a table")
    return table
