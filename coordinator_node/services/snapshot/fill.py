"""Fills the leader's memory from the database: at its start, and after anything that put the two out of step."""

from __future__ import annotations

from datetime import datetime
from itertools import batched

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.services.snapshot import observations
from coordinator_node.services.snapshot.observations import ObservationStore
from coordinator_node.services.snapshot.observed_rows import OBSERVED_COLUMNS, TRUTH_OF_PREDICTION, observation_of

ROWS_AT_ONCE = 2000

# What is not counted yet is fed by the cycle that counts it. The order is that of Observation.order.
_READ = text(
    f"""
    SELECT seen.* FROM models CROSS JOIN LATERAL (
        SELECT {OBSERVED_COLUMNS}
        FROM predictions AS prediction
        JOIN scores ON scores.prediction_id = prediction.id AND scores.generation = 1 AND scores.success
                   AND scores.snapshot_state = 'COUNTED'
        {TRUTH_OF_PREDICTION}
        WHERE prediction.model_id = models.id AND prediction.status = 'SCORED' AND prediction.resolvable_at > :after
        ORDER BY prediction.resolvable_at DESC, prediction.scope_key DESC, prediction.input_id DESC
        LIMIT :newest
    ) AS seen
    """  # noqa: S608 - put together from constants of this package
)


def filled_store(session: Session, after: datetime, *, keep_rows: bool) -> ObservationStore:
    """A new memory of what was scored, counted, and resolved after a moment; the newest ones of each model.

    The rows are streamed, so that filling takes little more memory than what it fills.
    """
    store = ObservationStore(keep_rows=keep_rows)
    values = {"after": after, "newest": observations.NEWEST_OBSERVATIONS}
    options = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    rows = session.connection().execute(_READ, values, execution_options=options)
    for part in batched(rows, ROWS_AT_ONCE):
        store.feed(observation_of(row) for row in part)
    return store
