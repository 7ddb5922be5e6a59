"""Where a rescore keeps its work: temporary tables of one connection, that nobody else sees and that end with it.

`replaced` has the snapshots that hold a score of the period, numbered by cycle, and `again` and `again_misses` the
predictions that they count: all of them, so that each new snapshot counts what the one it replaces counted.
`new_snapshots` and `new_scores` have the columns of the real tables, and are what becomes of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

import psycopg
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session

from coordinator_node.db.advisory import AdvisoryLock
from coordinator_node.db.json_text import parse_json
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.services.rescore.period import Period, RescoreError
from coordinator_node.services.score.claim import ClaimedPrediction
from coordinator_node.services.snapshot.observations import Observation
from coordinator_node.services.snapshot.observed_rows import OBSERVED_COLUMNS, TRUTH_OF_PREDICTION, observation_of
from coordinator_node.services.snapshot.uncounted import Miss

PREDICTIONS_AT_ONCE = 10_000
"""So many predictions are held in memory, or those of one cycle where that has more (SCORES_AT_ONCE at most)."""

# Of a period that was scored before, the times are those of the live stage's cycles.
_REPLACED = """
    CREATE TEMPORARY TABLE replaced AS
    SELECT snapshot_id, origin_id, model_id, period_start, period_end, late, created_at,
           dense_rank() OVER (ORDER BY created_at, cycle_end, cycle_id) AS cycle
    FROM (
        SELECT snapshot.id AS snapshot_id, origin.id AS origin_id, snapshot.model_id, snapshot.period_start,
               snapshot.period_end, snapshot.meta_jsonb -> 'late' AS late, origin.created_at, origin.cycle_id,
               min(snapshot.period_end) OVER (PARTITION BY origin.cycle_id) AS cycle_end
        FROM snapshots AS snapshot JOIN snapshots AS origin ON origin.id = COALESCE(snapshot.origin_id, snapshot.id)
        WHERE snapshot.superseded_by IS NULL AND snapshot.id IN (
            SELECT scores.snapshot_id
            FROM predictions AS prediction JOIN scores ON scores.prediction_id = prediction.id
            WHERE prediction.resolvable_at >= :start AND prediction.resolvable_at < :end
        )
    ) AS found
"""
_AGAIN = """
    CREATE TEMPORARY TABLE again AS
    SELECT DISTINCT ON (scores.prediction_id) scores.prediction_id, scores.id AS score_id, replaced.cycle
    FROM scores JOIN replaced ON replaced.snapshot_id = scores.snapshot_id
    ORDER BY scores.prediction_id, scores.generation DESC NULLS LAST, scores.scored_at DESC, scores.id
"""
# What failed when it was scored has a score, and is tried again; what never got one stays missing.
_MISSES = """
    CREATE TEMPORARY TABLE again_misses AS
    SELECT replaced.cycle, prediction.id AS prediction_id, prediction.model_id, prediction.scope_key, prediction.status,
           prediction.performed_at, prediction.resolvable_at
    FROM predictions AS prediction JOIN replaced ON replaced.origin_id = prediction.snapshot_id
    WHERE prediction.status IN ('FAILED', 'ABSENT')
      AND NOT EXISTS (SELECT 1 FROM scores WHERE scores.prediction_id = prediction.id)
"""
_PREPARE = (
    _REPLACED,
    "CREATE INDEX ON replaced (snapshot_id)",
    "CREATE INDEX ON replaced (cycle)",
    "ANALYZE replaced",
    _AGAIN,
    "CREATE INDEX ON again (cycle)",
    "ANALYZE again",
    _MISSES,
    "CREATE INDEX ON again_misses (cycle)",
    "ANALYZE again_misses",
    "CREATE TEMPORARY TABLE new_snapshots (LIKE snapshots INCLUDING DEFAULTS)",
    "CREATE TEMPORARY TABLE new_scores (LIKE scores INCLUDING DEFAULTS)",
)
_SIZES = text("SELECT cycle, count(*) AS predictions FROM again GROUP BY cycle ORDER BY cycle")
_OLDER = text(
    """
    SELECT count(DISTINCT prediction.id)
    FROM predictions AS prediction JOIN scores ON scores.prediction_id = prediction.id
    WHERE prediction.resolvable_at >= :start AND prediction.resolvable_at < :end
      AND NOT EXISTS (SELECT 1 FROM again WHERE again.prediction_id = prediction.id)
    """
)
_READ_REPLACED = text("SELECT * FROM replaced WHERE cycle BETWEEN :first AND :last ORDER BY cycle, model_id")
_READ_AGAIN = text(
    f"""
    SELECT again.cycle, prediction.id, prediction.resolvable_at >= :start AND prediction.resolvable_at < :end,
           COALESCE(scores.success, false), scores.failed_reason, {OBSERVED_COLUMNS}
    FROM again
    JOIN scores ON scores.id = again.score_id
    JOIN predictions AS prediction ON prediction.id = again.prediction_id
    {TRUTH_OF_PREDICTION}
    WHERE again.cycle BETWEEN :first AND :last
    ORDER BY prediction.resolvable_at, prediction.id
    """  # noqa: S608 - put together from constants of this package
)
_READ_MISSES = text(
    """
    SELECT cycle, prediction_id, model_id, scope_key, status, performed_at, resolvable_at FROM again_misses
    WHERE cycle BETWEEN :first AND :last ORDER BY resolvable_at, prediction_id
    """
)
_LOCK = text("SELECT pg_advisory_lock(:key)")
_UNLOCK = text("SELECT pg_advisory_unlock(:key)")

LOCK_WAIT_MILLISECONDS = 2000
"""How long another rescore is waited for: the database takes a moment to notice that one has been killed."""

_OUTPUT = 6
"""The place of the output among OBSERVED_COLUMNS."""


class ReplacedSnapshot(NamedTuple):
    """A snapshot that is to be replaced. `created_at` is when the live stage counted its scores."""

    snapshot_id: str
    origin_id: str
    model_id: str
    period_start: datetime
    period_end: datetime
    late: dict[str, Any] | None
    created_at: datetime
    cycle: int


@dataclass(frozen=True)
class ScoredBefore:
    """A prediction with the newest of its scores; one that is not `in_period` keeps it."""

    in_period: bool
    success: bool
    failed_reason: str | None
    claimed: ClaimedPrediction
    observation: Observation


@dataclass
class Cycle:
    """What one cycle of the live stage counted in snapshots that are to be replaced."""

    replaced: dict[str, ReplacedSnapshot]
    """By model id."""
    scored: list[ScoredBefore]
    misses: list[Miss]


@contextmanager
def staging_connection(engine: Engine) -> Iterator[Connection]:
    """A connection of its own, for one rescore at a time: its temporary tables and its lock end with it.

    Raises:
        RescoreError: another rescore runs.
    """
    connection = engine.connect()
    try:
        # A statement that was prepared before a temporary name came to stand before another would not notice it.
        cast("psycopg.Connection[Any]", connection.connection.driver_connection).prepare_threshold = None
        _lock(connection)
        yield connection
    finally:
        # Given back at once; where the connection is lost the database does it by itself.
        with contextlib.suppress(DBAPIError):
            connection.rollback()
            connection.execute(_UNLOCK, {"key": int(AdvisoryLock.RESCORE)})
            connection.commit()
        # Not back to the pool: what is temporary ends with the connection to the database.
        connection.invalidate()
        connection.close()


def _lock(connection: Connection) -> None:
    try:
        with connection.begin():
            connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_WAIT_MILLISECONDS}"))
            connection.execute(_LOCK, {"key": int(AdvisoryLock.RESCORE)})
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise RescoreError("another rescore is running; wait until it has ended") from None
        raise


def prepare(session: Session, period: Period) -> list[tuple[int, int]]:
    """Make the temporary tables; returns the cycles that are to be counted again, each with how many predictions."""
    for statement in _PREPARE:
        session.connection().execute(text(statement), period.bounds if ":start" in statement else {})
    return [(row.cycle, row.predictions) for row in session.connection().execute(_SIZES)]


def count_older(session: Session, period: Period) -> int:
    """How many scored predictions of the period are in no snapshot of this version, and so stay as they are."""
    found: int = session.connection().execute(_OLDER, period.bounds).scalar_one()
    return found


def batches(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(first, last) of cycles that are worked on together: PREDICTIONS_AT_ONCE predictions at most, or one cycle."""
    first, total = 0, 0
    for place, (_, size) in enumerate(sizes):
        if total and total + size > PREDICTIONS_AT_ONCE:
            yield sizes[first][0], sizes[place - 1][0]
            first, total = place, 0
        total += size
    if sizes:
        yield sizes[first][0], sizes[-1][0]


def read_cycles(session: Session, period: Period, first: int, last: int) -> list[Cycle]:
    """These cycles with all that they counted, in order."""
    values = {"first": first, "last": last}
    cycles = {number: Cycle({}, [], []) for number in range(first, last + 1)}
    for row in session.connection().execute(_READ_REPLACED, values):
        replaced = ReplacedSnapshot(**row._mapping)
        cycles[replaced.cycle].replaced[replaced.model_id] = replaced
    for cycle, prediction_id, in_period, success, failed_reason, *columns in session.connection().execute(
        _READ_AGAIN, values | period.bounds
    ):
        seen = observation_of(columns)
        output = columns[_OUTPUT]
        claimed = ClaimedPrediction(
            prediction_id, seen.input_id, seen.model_id, seen.scope_key, output, seen.resolvable_at, 0
        )
        cycles[cycle].scored.append(ScoredBefore(in_period, success, failed_reason, claimed, seen))
    for cycle, *fields in session.connection().execute(_READ_MISSES, values):
        miss = Miss._make(fields)
        cycles[cycle].misses.append(miss._replace(status=PredictionStatus(miss.status)))
    return [cycles[number] for number in sorted(cycles)]


def parsed_output(prediction: ScoredBefore) -> Any:
    """What the model said."""
    return parse_json(prediction.claimed.output)
