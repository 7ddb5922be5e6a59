"""Where evidence begins is found at once, however many snapshots its checkpoint ranks by."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_cases import NOW, Client, checkpoint, model, store
from plans import Plans
from report_rows import snapshot
from sqlalchemy import Engine, text

CYCLES = 4000
"""One a minute, the last one at NOW; each with one snapshot."""

HISTORY = (
    """
    INSERT INTO merkle_cycles (id, position, snapshots_root, chained_root, snapshot_count, prediction_count, created_at)
    SELECT 'c' || n, n, 'aa', 'bb', 1, 0, CAST(:now AS timestamptz) - (:cycles - n) * interval '1 minute'
    FROM generate_series(1, :cycles) AS n
    """,
    """
    INSERT INTO snapshots (id, model_id, period_start, period_end, prediction_count, result_summary_jsonb, meta_jsonb,
                           created_at, cycle_id)
    SELECT 's' || position, 'm1', created_at - interval '2 minutes', created_at - interval '1 second', 1, '{}', '{}',
           created_at, id
    FROM merkle_cycles
    """,
    """
    INSERT INTO merkle_nodes (id, cycle_id, level, position, hash, snapshot_id, snapshot_content_hash, created_at)
    SELECT 'n' || id, cycle_id, 0, 0, 'aa', id, 'ab', created_at FROM snapshots WHERE cycle_id IS NOT NULL
    """,
    "ANALYZE",
)


@pytest.mark.parametrize("hours", [1, 24, 10**9])
def test_the_first_page_reads_little(client: Client, engine: Engine, hours: int) -> None:
    store(engine, model("m1"), snapshot(5, "m1", id="outside", cycle_id=None))
    with engine.begin() as connection:
        for statement in HISTORY:
            connection.execute(text(statement), {"now": NOW, "cycles": CYCLES} if ":now" in statement else {})
    rules = {"windows": {"score_recent": hours}, "ranking_key": "score_recent", "min_predictions": 0}
    sealed = {"generation": 1, "last_position": CYCLES, "root": "aa"}
    meta = {"merkle": sealed, "rules": rules, "ranking": []}
    store(engine, checkpoint("c1", period_start=NOW - timedelta(minutes=10), meta_jsonb=meta, merkle_root="aa"))
    with Plans(engine).recorded() as found:
        page = client.rows("/reports/evidence/c1")
    assert [row["id"] for row in page["snapshots"]] == ["outside"]
    # The first one whose snapshot ends in the window, and the one before it.
    assert page["next"] == f"{max(CYCLES - min(hours * 60, CYCLES), 1)}.0"
    # Besides the cycles made since the window's begin.
    assert max(explained.rows for explained in found) < 500 + min(hours * 60, CYCLES), found
