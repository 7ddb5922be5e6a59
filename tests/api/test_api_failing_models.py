"""A model that fails for weeks has a snapshot in each cycle, with nothing in it: no answer reads them one by one."""

from __future__ import annotations

import pytest
from api_cases import NOW, Client, settings, stage, store
from plans import Plans
from report_rows import keep_buckets, snapshot
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.leaderboard import Leaderboard

EMPTY = 8000
"""Snapshots with nothing in them."""

_FAILS = text(
    """
    INSERT INTO snapshots (id, model_id, period_start, period_end, prediction_count, result_summary_jsonb, meta_jsonb,
                           created_at, cycle_id)
    SELECT 'empty-' || n, 'fails', at - interval '1 minute', at, 0, '{}',
           '{"missing_count": 4, "due_count": 4, "scopes": {}}', at, 'empty-cycle-' || n
    FROM generate_series(0, :empty - 1) AS n
    CROSS JOIN LATERAL (SELECT CAST(:now AS timestamptz) - n * interval '1 minute' AS at) AS moment
    """
)


@pytest.fixture
def plans(engine: Engine) -> Plans:
    stage(engine, "works", "fails")
    store(engine, *(snapshot(number, "works") for number in range(20)))
    store(engine, snapshot(EMPTY, "fails"))
    with engine.begin() as connection:
        connection.execute(_FAILS, {"empty": EMPTY, "now": NOW})
        connection.execute(text("ANALYZE"))
    return Plans(engine)


LATEST = ("diversity", "models/works/diversity", "models/fails/diversity", "models/summary", "snapshots")


def test_what_is_latest_is_found_at_once(client: Client, plans: Plans) -> None:
    with plans.recorded() as found:
        assert all(client.rows(f"/reports/{path}") for path in LATEST)
    assert max(explained.rows for explained in found) < 500, found


@pytest.mark.parametrize("kept", [False, True])
def test_how_it_stood_is_told_by_what_there_was_once(client: Client, engine: Engine, plans: Plans, kept: bool) -> None:
    if kept:
        keep_buckets(engine)
    with plans.recorded() as found:
        rows = client.rows("/reports/models/global")
    assert {row["model_id"] for row in rows} == {"works", "fails"}
    assert max(explained.rows for explained in found) < 4 * EMPTY, found


def test_the_leaderboard_is_made_without_reading_them(engine: Engine, plans: Plans) -> None:
    with plans.recorded() as found, Session(engine) as session:
        Leaderboard(CrunchConfig(), settings()).write(session, NOW)
    (latest,) = [
        explained for explained in found if "LATERAL" in explained.statement and "FROM models" in explained.statement
    ]
    assert latest.rows < 500, latest
