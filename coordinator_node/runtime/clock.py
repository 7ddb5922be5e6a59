"""The worker's clock beside the database's."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

# A worker's clock may be so far ahead of the database's before what it says is not believed.
AHEAD = timedelta(seconds=2)


def not_ahead(session: Session, now: datetime) -> datetime:
    """The worker's time, or the database's where the worker's is well ahead of it.

    Rows written for a future that a clock only jumped to would keep everything after the jump from being done.
    """
    known: datetime = session.connection().execute(text("SELECT clock_timestamp()")).scalar_one()
    if now - known <= AHEAD:
        return now
    log.warning(
        "this worker's clock is ahead of the database's, whose time is used", seconds=(now - known).total_seconds()
    )
    return known
