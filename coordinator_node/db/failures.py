"""What the database refused, in one line for a person."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

# Postgres's code for a lock that was not had within lock_timeout.
LOCK_NOT_AVAILABLE = "55P03"


def sqlstate(error: DBAPIError) -> str | None:
    """Postgres's five-character code; None where no server gave one, as when none was reached."""
    return error.orig.sqlstate if isinstance(error.orig, psycopg.Error) else None


def reached_server(error: DBAPIError) -> bool:
    """Whether a server answered the statement with this error; False where the connection failed or broke."""
    return sqlstate(error) is not None and not error.connection_invalidated


def one_line(error: DBAPIError) -> str:
    """What Postgres said, with its detail and hint; without the statement and its parameters, which may be secret."""
    if not reached_server(error):
        said = f"the database cannot be reached: {error.orig}"
    elif isinstance(error.orig, psycopg.Error):
        given = (error.orig.diag.message_primary, error.orig.diag.message_detail, error.orig.diag.message_hint)
        said = "; ".join(part for part in given if part)
    else:
        said = str(error.orig)
    return " ".join(said.split())
