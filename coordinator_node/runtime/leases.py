"""Leases: who may do what only one may do.

A lease is a row {name, holder, epoch, expires_at}. Its holder renews it every RENEW_SECONDS; after LEASE_SECONDS
without renewal anyone may take it, and the epoch grows. Times are the database's own, so that the clocks of the
workers do not matter.

Every transaction that writes under a lease ends with its fence's `check`, which reads the row FOR SHARE: from there to
the commit nobody can take the lease, and a holder that was stopped or cut off finds another epoch when it wakes, so
that its transaction is rolled back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Engine, text
from sqlmodel import Session

LEASE_SECONDS = 6.0
RENEW_SECONDS = 2.0

_ACQUIRE = text(
    """
    INSERT INTO leases (name, holder, epoch, acquired_at, expires_at)
    VALUES (:name, :holder, 1, clock_timestamp(), clock_timestamp() + make_interval(secs => :ttl))
    ON CONFLICT (name) DO UPDATE SET
        holder = excluded.holder, epoch = leases.epoch + 1,
        acquired_at = excluded.acquired_at, expires_at = excluded.expires_at
    WHERE leases.expires_at <= clock_timestamp()
    RETURNING epoch
    """
)
_RENEW = text(
    """
    UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => :ttl)
    WHERE name = :name AND epoch = :epoch RETURNING epoch
    """
)
_RELEASE = text("UPDATE leases SET expires_at = clock_timestamp() WHERE name = :name AND epoch = :epoch")
_CHECK = text("SELECT epoch FROM leases WHERE name = :name FOR SHARE")


class LeaseLostError(RuntimeError):
    """The lease went to someone else; what was to be written under it was rolled back."""


class Lease:
    """One worker's claim to a name. `epoch` is None while it does not hold it."""

    def __init__(self, engine: Engine, name: str, holder: str, *, seconds: float = LEASE_SECONDS) -> None:
        self.name = name
        self.holder = holder
        self._engine = engine
        self._seconds = seconds
        self._epoch: int | None = None
        self._held_until = 0.0

    @property
    def epoch(self) -> int | None:
        """The epoch under which it is held; None once it may have run out, even before anyone took it."""
        return self._epoch if time.monotonic() < self._held_until else None

    @property
    def held(self) -> bool:
        """Whether this worker may work under it. A hint that saves work: the fence is what decides."""
        return self.epoch is not None

    def keep(self) -> bool:
        """Renew it, or take it if it is free; True if it is held afterwards."""
        asked_at = time.monotonic()
        values = {"name": self.name, "holder": self.holder, "ttl": self._seconds}
        with self._engine.begin() as connection:
            epoch: int | None = None
            if self._epoch is not None:
                epoch = connection.execute(_RENEW, {**values, "epoch": self._epoch}).scalar()
            if epoch is None:
                epoch = connection.execute(_ACQUIRE, values).scalar()
        self._epoch = epoch
        # Counted from before the question was asked, so that this side's end always comes first.
        self._held_until = asked_at + self._seconds if epoch is not None else 0.0
        return epoch is not None

    def release(self) -> None:
        """Give it up, so that the next one need not wait for it to run out."""
        if self._epoch is not None:
            with self._engine.begin() as connection:
                connection.execute(_RELEASE, {"name": self.name, "epoch": self._epoch})
            self._epoch = None
            self._held_until = 0.0

    def fence(self) -> LeaseFence:
        """What the transactions of one pass commit under: the epoch of now, whatever becomes of the lease meanwhile.

        Raises:
            LeaseLostError: it is not held.
        """
        epoch = self.epoch
        if epoch is None:
            raise LeaseLostError(f"lease {self.name} is not held by {self.holder}")
        return LeaseFence(self.name, epoch)


@dataclass(frozen=True)
class LeaseFence:
    """One epoch of a lease, to be checked by each transaction that writes under it."""

    name: str
    epoch: int

    def check(self, session: Session) -> None:
        """Hold the lease's row for the rest of the session's transaction.

        Raises:
            LeaseLostError: the epoch has passed.
        """
        found = session.connection().execute(_CHECK, {"name": self.name}).scalar()
        if found != self.epoch:
            raise LeaseLostError(f"lease {self.name}: epoch {self.epoch} has passed, it is now {found}")
