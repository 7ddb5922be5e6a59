"""Heartbeats: one row a running worker, so that others and the operator see who is alive and what it last did."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.entities.ids import new_id
from coordinator_node.entities.json_values import reason_of
from coordinator_node.entities.times import utc_now
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.metrics import samples

BEAT_SECONDS = 2.0
# A worker that has not beaten for so long is taken to be gone.
ALIVE_SECONDS = 15.0

_BEAT = text(
    """
    INSERT INTO worker_heartbeats (worker_id, role, host, pid, started_at, beat_at,
                                   last_pass_at, last_pass_jsonb, last_error, last_error_at, metrics_jsonb)
    VALUES (:worker_id, :role, :host, :pid, clock_timestamp() - make_interval(secs => :up), clock_timestamp(),
            :last_pass_at, CAST(:last_pass AS jsonb), :last_error, :last_error_at,
            CAST(:metrics AS jsonb))
    ON CONFLICT (worker_id) DO UPDATE SET
        beat_at = excluded.beat_at, last_pass_at = excluded.last_pass_at, last_pass_jsonb = excluded.last_pass_jsonb,
        last_error = excluded.last_error, last_error_at = excluded.last_error_at,
        metrics_jsonb = excluded.metrics_jsonb
    RETURNING beat_at
    """
)
_FORGET_OLD = text(
    "DELETE FROM worker_heartbeats WHERE role = :role AND beat_at < clock_timestamp() - interval '1 hour'"
)
_ALIVE = text(
    "SELECT count(*) FROM worker_heartbeats"
    " WHERE role = :role AND beat_at > clock_timestamp() - make_interval(secs => :seconds)"
)


class Heartbeat:
    """The row of one worker, and what its last pass did, by the worker's clock."""

    def __init__(self, engine: Engine, role: str, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._role = role
        self._clock = clock
        self.worker_id = f"{role}-{new_id()}"
        # Whether its row holds the process's metrics too, because nobody can ask the process itself for them.
        self.carries_metrics = True
        self._begun = time.monotonic()
        self._last_pass_at: datetime | None = None
        self._last_pass: dict[str, Any] | None = None
        self._last_error: str | None = None
        self._last_error_at: datetime | None = None

    def report(self, outcome: PassResult | BaseException) -> None:
        """Take note of a pass; the next beat writes it."""
        if isinstance(outcome, BaseException):
            self._last_error = reason_of(outcome)
            self._last_error_at = self._clock()
            return
        self._last_pass_at = self._clock()
        if not outcome.idle or self._last_pass is None:
            self._last_pass = dict(outcome.counts)

    def beat(self) -> datetime:
        """Write the row, and drop those of this role that have been silent for an hour; returns the database's time."""
        with self._engine.begin() as connection:
            connection.execute(_FORGET_OLD, {"role": self._role})
            beaten = connection.execute(
                _BEAT,
                {
                    "worker_id": self.worker_id,
                    "role": self._role,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "up": time.monotonic() - self._begun,
                    "last_pass_at": self._last_pass_at,
                    "last_pass": json.dumps(self._last_pass) if self._last_pass is not None else None,
                    "last_error": self._last_error,
                    "last_error_at": self._last_error_at,
                    "metrics": json.dumps(samples()) if self.carries_metrics else None,
                },
            )
            beat_at: datetime = beaten.scalar_one()
        return beat_at

    def remove(self) -> None:
        """Delete the row: the worker has ended as it should."""
        with self._engine.begin() as connection:
            connection.execute(text("DELETE FROM worker_heartbeats WHERE worker_id = :id"), {"id": self.worker_id})


def count_alive(session: Session, role: str, seconds: float = ALIVE_SECONDS) -> int:
    """How many workers of that role have beaten in the last `seconds`."""
    return int(session.connection().execute(_ALIVE, {"role": role, "seconds": seconds}).scalar_one())


def any_alive(session: Session, role: str) -> bool:
    """Whether a worker of that role has beaten in the last ALIVE_SECONDS."""
    return count_alive(session, role) > 0
