"""Fills the leader's memory from the database: at its start, and after anything that put the two out of step."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import batched

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.services.snapshot import observations
from coordinator_node.services.snapshot.observations import ObservationStore
from coordinator_node.services.snapshot.observed_rows import OBSERVED_COLUMNS, TRUTH_OF_PREDICTION, observation_of

ROWS_AT_ONCE = 2000

_EVER = datetime.max.replace(tzinfo=UTC)

# Of each prediction the newest score, whose success may be that of one that failed at first. What is not counted yet
# is fed by the cycle that counts it. The order is that of Observation.order.
_READ = text(
    f"""
    SELECT seen.* FROM models CROSS JOIN LATERAL (
        SELECT {OBSERVED_COLUMNS}
        FROM predictions AS prediction
        CROSS JOIN LATERAL (
            SELECT * FROM scores WHERE prediction_id = prediction.id AND generation >= 1
            ORDER BY generation DESC LIMIT 1
        ) AS scores
        {TRUTH_OF_PREDICTION}
        WHERE prediction.model_id = models.id AND prediction.status IN ('SCORED', 'FAILED')
          AND prediction.resolvable_at > :after AND prediction.resolvable_at < :before
          AND scores.success AND scores.snapshot_state = 'COUNTED'
        ORDER BY prediction.resolvable_at DESC, prediction.scope_key DESC, prediction.input_id DESC
        LIMIT :newest
    ) AS seen
    """  # noqa: S608 - put together from constants of this package
)


def filled_store(
    session: Session, after: datetime, before: datetime | None = None, *, keep_rows: bool
) -> ObservationStore:
    """A new memory of what was scored, counted, and resolved between two moments; the newest ones of each model.

    The rows are streamed, so that filling takes little more memory than what it fills.
    """
    store = ObservationStore(keep_rows=keep_rows)
    values = {"after": after, "before": before or _EVER, "newest": observations.NEWEST_OBSERVATIONS}
    options = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    rows = session.connection().execute(_READ, values, execution_options=options)
    for part in batched(rows, ROWS_AT_ONCE):
        store.feed(observation_of(row) for row in part)
    return store
