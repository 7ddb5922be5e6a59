"""Locks of the database that have no row: held to the end of the transaction, freed by any end of it."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Connection, text


class AdvisoryLock(IntEnum):
    """What only one transaction of a database may do at a time. The numbers are ours to choose, once."""

    MIGRATE = 7_204_001
    SCHEDULES = 7_204_002
    BACKFILL = 7_204_003
    RESCORE = 7_204_004


def take(connection: Connection, lock: AdvisoryLock) -> None:
    """Wait until no other transaction holds `lock`, then hold it until this transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int(lock)})
