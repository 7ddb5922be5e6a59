"""The worker's clock beside the database's."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.times import utc_now
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

# A worker's clock may be so far ahead of the database's before what it says is not believed.
AHEAD = timedelta(seconds=2)
# By so much the clocks of two machines may differ that are kept right.
TOLERANCE = timedelta(seconds=0.5)


class WorkerClock:
    """The time, as all workers agree on it: counted by the machine's steady clock, and set right by the database's.

    A machine's wall clock may be wrong, or be put right in a jump, while slots are opened and outcomes waited for. What
    is done by this clock is not disturbed by that; only when the database's own clock jumps, this one follows.
    """

    def __init__(self, wall: Callable[[], datetime] = utc_now, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._begun = steady()
        self._begun_at = wall()

    def __call__(self) -> datetime:
        """The time as an aware datetime in UTC."""
        return self._begun_at + timedelta(seconds=self._steady() - self._begun)

    def compare(self, asked_at: datetime, database_time: datetime) -> None:
        """Follow the database where its answer differs by more than TOLERANCE.

        Args:
            asked_at: what this clock showed before the database was asked.
            database_time: its answer, which it gave at some moment between then and now.
        """
        now = self()
        if asked_at - TOLERANCE <= database_time <= now + TOLERANCE:
            return
        seconds = (database_time - now).total_seconds()
        log.warning(
            "this worker's clock differs from the database's, which is followed", database_ahead_seconds=seconds
        )
        self._begun_at += database_time - now


def database_time(session: Session) -> datetime:
    """The database's time, as an aware datetime in UTC; later with each question, also within a transaction."""
    found: datetime = session.connection().execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def not_ahead(session: Session, now: datetime) -> datetime:
    """The worker's time, or the database's where the worker's is well ahead of it.

    Rows written for a future that a clock only jumped to would keep everything after the jump from being done.
    """
    known = database_time(session)
    if now - known <= AHEAD:
        return now
    log.warning(
        "this worker's clock is ahead of the database's, whose time is used", seconds=(now - known).total_seconds()
    )
    return known
