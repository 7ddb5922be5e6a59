"""Leases: who may do what only one may do.

A lease is a row {name, holder, epoch, expires_at}. Its holder renews it every RENEW_SECONDS; after LEASE_SECONDS
without renewal anyone may take it, and the epoch grows. A new row's epoch is the time in milliseconds, so that it is
beyond those of a row that was deleted, as by a reset of the database. Times are the database's own, so that the clocks
of the workers do not matter.

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

_TAKE = text(
    """
    INSERT INTO leases (name, holder, epoch, acquired_at, expires_at)
    VALUES (:name, :holder, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS bigint), clock_timestamp(),
            clock_timestamp() + make_interval(secs => :ttl))
    ON CONFLICT (name) DO UPDATE SET
        holder = excluded.holder, epoch = leases.epoch + 1,
        acquired_at = excluded.acquired_at, expires_at = excluded.expires_at
    WHERE leases.expires_at <= clock_timestamp()
    RETURNING epoch
    """
)
# Locked in the order of their names, as by every fence's check: else the two could wait for each other in a circle.
_HELD = """
    FROM (SELECT leases.name FROM leases
          JOIN unnest(CAST(:names AS text[]), CAST(:epochs AS bigint[])) AS held(name, epoch)
            ON leases.name = held.name AND leases.epoch = held.epoch
          ORDER BY leases.name FOR UPDATE OF leases) AS own
    WHERE leases.name = own.name
"""
_RENEW = text(
    f"""
    UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => :ttl) {_HELD} RETURNING leases.name
    """  # noqa: S608 - put together from this module's own text
)
_RELEASE = text(f"UPDATE leases SET expires_at = clock_timestamp() {_HELD}")  # noqa: S608 - likewise
_FREE = text(
    """
    SELECT wanted.name FROM unnest(CAST(:names AS text[])) AS wanted(name)
    LEFT JOIN leases ON leases.name = wanted.name
    WHERE leases.name IS NULL OR leases.expires_at <= clock_timestamp() - make_interval(secs => :idle)
    """
)
_CHECK = text("SELECT name, epoch FROM leases WHERE name = ANY(:names) ORDER BY name FOR SHARE")


class LeaseLostError(RuntimeError):
    """Leases went to someone else; what was to be written under them was rolled back. `names` says which."""

    def __init__(self, message: str, names: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.names = names


class LeaseGroup:
    """One worker's claims to any of several names, such as the shards of the predict stage."""

    def __init__(self, engine: Engine, names: tuple[str, ...], holder: str, *, seconds: float = LEASE_SECONDS) -> None:
        self.names = names
        self.holder = holder
        self._engine = engine
        self._seconds = seconds
        self._epochs: dict[str, int] = {}
        self._held_until: dict[str, float] = {}

    @property
    def epochs(self) -> dict[str, int]:
        """The names that are held, with the epoch of each; without those that may have run out, taken or not.

        A hint that saves work: the fence is what decides.
        """
        now = time.monotonic()
        return {name: epoch for name, epoch in list(self._epochs.items()) if now < self._held_until.get(name, 0.0)}

    def renew(self) -> None:
        """Renew all that are held; those that somebody took are forgotten."""
        if not self._epochs:
            return
        asked_at = time.monotonic()
        with self._engine.begin() as connection:
            renewed = set(connection.execute(_RENEW, {**self._held(), "ttl": self._seconds}).scalars())
        for name in list(self._epochs):
            if name in renewed:
                # Counted from before the question was asked, so that this side's end always comes first.
                self._held_until[name] = asked_at + self._seconds
            else:
                del self._epochs[name]

    def free(self, idle_seconds: float = 0.0) -> list[str]:
        """The names that nobody has held for so long."""
        with self._engine.begin() as connection:
            values = {"names": list(self.names), "idle": idle_seconds}
            return list(connection.execute(_FREE, values).scalars())

    def take(self, name: str) -> bool:
        """Take one if it is free; True if it is held afterwards."""
        asked_at = time.monotonic()
        values = {"name": name, "holder": self.holder, "ttl": self._seconds}
        with self._engine.begin() as connection:
            epoch = connection.execute(_TAKE, values).scalar()
        if epoch is not None:
            self._held_until[name] = asked_at + self._seconds
            self._epochs[name] = epoch
        return epoch is not None

    def release(self, names: set[str] | None = None) -> None:
        """Give up these, or all, so that the next one need not wait for them to run out."""
        given_up = set(self._epochs) if names is None else names & set(self._epochs)
        if given_up:
            held = {name: self._epochs[name] for name in given_up}
            with self._engine.begin() as connection:
                connection.execute(_RELEASE, {"names": list(held), "epochs": list(held.values())})
            for name in given_up:
                del self._epochs[name]

    def _held(self) -> dict[str, list[object]]:
        held = dict(self._epochs)
        return {"names": list(held), "epochs": list(held.values())}


class Lease:
    """One worker's claim to one name."""

    def __init__(self, engine: Engine, name: str, holder: str, *, seconds: float = LEASE_SECONDS) -> None:
        self.name = name
        self.holder = holder
        self._group = LeaseGroup(engine, (name,), holder, seconds=seconds)

    @property
    def epoch(self) -> int | None:
        """The epoch under which it is held; None once it may have run out, even before anyone took it."""
        return self._group.epochs.get(self.name)

    @property
    def held(self) -> bool:
        """Whether this worker may work under it. A hint that saves work: the fence is what decides."""
        return self.epoch is not None

    def keep(self) -> bool:
        """Renew it, or take it if it is free; True if it is held afterwards."""
        self._group.renew()
        return self.held or self._group.take(self.name)

    def release(self) -> None:
        """Give it up, so that the next one need not wait for it to run out."""
        self._group.release()

    def fence(self) -> LeaseFence:
        """What the transactions of one pass commit under: the epoch of now, whatever becomes of the lease meanwhile.

        Raises:
            LeaseLostError: it is not held.
        """
        epoch = self.epoch
        if epoch is None:
            raise LeaseLostError(f"lease {self.name} is not held by {self.holder}", frozenset({self.name}))
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
        check_epochs(session, {self.name: self.epoch})


@dataclass(frozen=True)
class GroupFence:
    """Epochs of several leases, all of which must hold."""

    epochs: dict[str, int]

    def check(self, session: Session) -> None:
        """As LeaseFence, for all of them in one statement; the error names those that have passed."""
        check_epochs(session, self.epochs)


def check_epochs(session: Session, epochs: dict[str, int]) -> None:
    """Hold the leases' rows for the rest of the session's transaction.

    Raises:
        LeaseLostError: the epoch of one or more has passed.
    """
    found = {row.name: row.epoch for row in session.connection().execute(_CHECK, {"names": sorted(epochs)})}
    lost = frozenset(name for name, epoch in epochs.items() if found.get(name) != epoch)
    if lost:
        said = ", ".join(
            f"{name}: epoch {epochs[name]} has passed, it is now {found.get(name)}" for name in sorted(lost)
        )
        raise LeaseLostError(f"lease {said}", lost)
