"""Which period is scored again, and whether it is closed: whether all that was due in it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.errors import ConfigurationError

_WAITING = text(
    """
    SELECT count(*) AS predictions, min(failed_reason) AS reason FROM predictions
    WHERE status = 'PENDING' AND resolvable_at >= :start AND resolvable_at < :end
    """
)
_UNCOUNTED = text(
    """
    SELECT count(*) FROM scores JOIN predictions AS prediction ON prediction.id = scores.prediction_id
    WHERE scores.snapshot_state = 'PENDING' AND prediction.resolvable_at >= :start AND prediction.resolvable_at < :end
    """
)
_CHECKPOINTS = text(
    """
    SELECT id, status, period_start, period_end FROM checkpoints
    WHERE period_start < :end AND period_end > :start ORDER BY period_start
    """
)


class RescoreError(RuntimeError):
    """The period cannot be scored again now; the message says why and what to do, and nothing was written."""


@dataclass(frozen=True)
class Period:
    """The predictions whose outcome was to be known in [start, end), as `resolvable_at` says."""

    start: datetime
    end: datetime

    @property
    def bounds(self) -> dict[str, Any]:
        """`start` and `end`, for a statement."""
        return {"start": self.start, "end": self.end}

    def __str__(self) -> str:
        return f"{self.start.isoformat()} to {self.end.isoformat()}"


@dataclass(frozen=True)
class MadeCheckpoint:
    """A checkpoint that a period reaches into."""

    id: str
    status: str
    start: datetime
    end: datetime


def check_period(period: Period, now: datetime) -> None:
    """Refuse a period that is none, or that has not passed.

    Raises:
        ConfigurationError: the message says which end is wrong.
    """
    if period.start >= period.end:
        raise ConfigurationError(f"--from {period.start.isoformat()} is not before --to {period.end.isoformat()}")
    if period.end > now:
        raise ConfigurationError(
            f"--to {period.end.isoformat()} is in the future; only a closed period is scored again, and it is"
            f" {now.isoformat()} now"
        )


def check_closed(session: Session, period: Period) -> None:
    """Refuse a period in which something has not ended.

    Raises:
        RescoreError: predictions wait for their truth or to be scored, or scores wait for their snapshot.
    """
    waiting = session.connection().execute(_WAITING, period.bounds).one()
    if waiting.predictions:
        reason = f" (such as: {waiting.reason})" if waiting.reason else ""
        raise RescoreError(
            f"{waiting.predictions} predictions of {period} are not final yet{reason}; let a score worker run until"
            " they are, at most GROUND_TRUTH_TIMEOUT_SECONDS after the period, or choose an earlier --to"
        )
    uncounted = session.connection().execute(_UNCOUNTED, period.bounds).scalar_one()
    if uncounted:
        raise RescoreError(
            f"{uncounted} scores of {period} are in no snapshot yet; let a score worker run for one cycle"
            " (SCORE_INTERVAL_SECONDS) and try again"
        )


def made_checkpoints(session: Session, period: Period) -> list[MadeCheckpoint]:
    """The checkpoints that the period reaches into; they stay as they were made."""
    rows = session.connection().execute(_CHECKPOINTS, period.bounds)
    return [MadeCheckpoint(row.id, row.status, row.period_start, row.period_end) for row in rows]
