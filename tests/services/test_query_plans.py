"""What every worker asks in each pass, beside 200,000 scored predictions: no table is read from end to end.

Nothing is listed by hand: the stages run, and whatever they execute is explained with its own parameters. A stage's
first passes, which read its windows or a whole period, are told apart from those that it then repeats: these may look
at little more than what is new. Plans are those for the parameters at hand; one that Postgres keeps for all of them
shows in `make bench-score`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import builders
import pytest
from candle_venue import MINUTE, CandleVenue, FeedProcess, candle_settings
from candle_venue import START as VENUE_START
from model_cluster import ModelCluster, steady
from plans import Explained, Plans
from predict_cases import store_prices, until_rows
from score_history import MODELS, ScoreHistory
from sqlalchemy import Engine, text
from sqlmodel import Session
from test_predict import CONFIG as SCHEDULED
from test_predict import called, predicting
from test_tournament import CONFIG as TOURNAMENT
from test_tournament import PRESENT, doubles, queue
from test_tournament import called as all_called

from coordinator_node.crunch_config import CrunchConfig, EnsembleConfig
from coordinator_node.db.engine import transaction
from coordinator_node.entities.times import utc_now
from coordinator_node.runtime.heartbeat import Heartbeat, any_alive
from coordinator_node.runtime.leases import Lease
from coordinator_node.services.backfill.jobs import LEASE_NAME as BACKFILL_LEASE
from coordinator_node.services.backfill.runner import BackfillRunner
from coordinator_node.services.checkpoint import CheckpointStage
from coordinator_node.services.score import ScoreStage, StatefulScoreStage
from coordinator_node.services.snapshot import SnapshotStage, series
from coordinator_node.services.tournament.truths import give_truth

SLOTS = 200_000 // MODELS
SLOT_SECONDS = 1800
"""So that the longest window holds an eighth of the history."""

REPEATED = 4
"""Passes that are held to little more than what is new."""

MOST_ROWS = 2000
MOST_PAGES = 6000
"""Of one statement of a repeated pass, whose new work is a slot of MODELS predictions."""

MAY_SCAN = {
    "SELECT seen.* FROM models CROSS JOIN LATERAL": "the leader's start reads a window of predictions with their"
    " inputs, and of these, one for fifty predictions, rather all than thousands one by one",
}
"""Beginnings of statements that may read a big table from end to end, and why."""

# Enough of everything that a history brings along.
BESIDE = (
    """
    INSERT INTO slot_calls (slot_id, lease_name, epoch, model_ids_jsonb, called_at, closed_at)
    SELECT slot.id, 'predict/' || lpad(shard::text, 2, '0'), 1, '[]', slot_at, slot_at
    FROM prediction_slots AS slot CROSS JOIN generate_series(0, 11) AS shard
    """,
    """
    INSERT INTO feed_records (id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb, meta_jsonb)
    SELECT 'tick-' || n, 'simulated', 'BTC', 'tick', '1s', moment, moment, '{"price": 1.0}', '{}'
    FROM generate_series(1, 100000) AS n
    CROSS JOIN LATERAL (SELECT :tick_end - n * interval '1 second' AS moment) AS at
    """,
    """
    INSERT INTO feed_records (id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb, meta_jsonb)
    SELECT 'candle-' || subject || n, 'venue', subject, 'candle', '1m', moment, moment, '{"close": 1.0}', '{}'
    FROM unnest(ARRAY['BTC', 'ETH']) AS subject CROSS JOIN generate_series(1, 50000) AS n
    CROSS JOIN LATERAL (SELECT :candle_end - n * interval '1 minute' AS moment) AS at
    """,
    """
    INSERT INTO leaderboards (id, created_at, entries_jsonb, meta_jsonb)
    SELECT 'leaderboard-' || n, :tick_end - n * interval '20 minutes', '[]', '{}' FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO ensemble_weights (id, model_id, computed_at, weights_jsonb)
    SELECT 'weights-' || n, '__ensemble_main__', :tick_end - n * interval '20 minutes', '{}'
    FROM generate_series(1, 5000) AS n
    """,
    """
    INSERT INTO backfill_jobs (id, source, subject, kind, granularity, start_ts, end_ts, records_written, pages_fetched,
                               status, created_at, updated_at)
    SELECT 'job-' || n, 'venue', 'BTC', 'candle', '1m', :candle_end, :candle_end, 0, 0, 'completed', :candle_end,
           :candle_end
    FROM generate_series(1, 5000) AS n
    """,
)


@pytest.fixture
def history(database_url: str, connect: Callable[[str], Engine]) -> ScoreHistory:
    engine = connect(database_url)
    ended = utc_now().replace(microsecond=0) - timedelta(hours=1)
    made = ScoreHistory(engine, ended - timedelta(seconds=SLOTS * SLOT_SECONDS), SLOT_SECONDS, slots_a_cycle=10)
    made.add_models()
    made.add_scored(SLOTS)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in BESIDE:
            connection.execute(text(statement), {"tick_end": ended, "candle_end": VENUE_START + 50 * MINUTE})
        connection.execute(text("ANALYZE"))
    return made


def failing(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    if prediction["model_id"] == "model-001":
        raise ValueError("never")
    return {"value": ground_truth["profit"]}


CONFIG = CrunchConfig(scoring_function=failing, ensembles=[EnsembleConfig(name="main")])
SETTINGS = builders.settings_of(INPUT_TTL_DAYS="30", LEADERBOARD_TTL_DAYS="40", CHECKPOINT_INTERVAL_SECONDS="604800")


async def test_no_pass_reads_a_big_table(
    history: ScoreHistory, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What fills in the past takes a bite in each pass, which is not to be a whole table here.
    monkeypatch.setattr(series, "MOST_ROWS", 200)
    plans = Plans(engine)
    assert {
        "predictions",
        "scores",
        "inputs",
        "prediction_slots",
        "slot_calls",
        "snapshots",
        "feed_records",
    } < plans.big
    with plans.recorded() as control, engine.connect() as connection:
        connection.execute(text("SELECT count(*) FROM predictions WHERE exec_time_ms > 2"))
    assert control[0].scans

    first, repeated = score_and_snapshot(engine, history, plans)
    with plans.recorded() as found:
        await predict(engine, history.engine)
        await run_round(engine, history.engine)
        await feed(engine)
        await backfill(engine, tmp_path)
    repeated += found
    assert {"predictions", "scores", "inputs", "prediction_slots", "slot_calls", "feed_records"} <= {
        access.table for explained in repeated for access in explained.accesses
    }
    assert_that_none_scans([*first, *repeated])
    dear = [str(explained) for explained in repeated if explained.rows > MOST_ROWS or explained.pages > MOST_PAGES]
    assert not dear, "\n".join(dear)


def assert_that_none_scans(explained: list[Explained]) -> None:
    scanning = {
        one.statement: str(one) for one in explained if one.scans and not one.statement.startswith(tuple(MAY_SCAN))
    }
    assert not scanning, "\n".join(scanning.values())


def score_and_snapshot(engine: Engine, history: ScoreHistory, plans: Plans) -> tuple[list[Explained], list[Explained]]:
    """What the score worker asks when it starts, and what it asks in each pass."""
    with Session(history.engine) as session:
        fence = builders.lease(session, "leader")
        session.commit()
    checkpoints = CheckpointStage(engine, CONFIG, SETTINGS)
    with plans.recorded() as starting:
        while checkpoints.run_once(history.slot_at(SLOTS), fence).again:
            pass
    # What is old is thinned out for the first time, which changes these tables as no later pass does.
    SnapshotStage(engine, CONFIG, SETTINGS).run_once(history.slot_at(SLOTS), fence)
    with history.engine.begin() as connection:
        connection.execute(text("ANALYZE leaderboards, ensemble_weights, inputs"))
    score, snapshots = ScoreStage(engine, CONFIG, SETTINGS), SnapshotStage(engine, CONFIG, SETTINGS)
    heartbeat, lease = Heartbeat(engine, "score"), Lease(engine, "score-leader", "somebody")

    # From here on half a minute lies between two slots, so that no pass reads anew what is read anew each hour.
    due = ScoreHistory(history.engine, history.slot_at(SLOTS) - SLOTS * timedelta(seconds=30))

    def a_pass(slot: int) -> None:
        now = due.resolved_at(slot)
        due.add_due(slot, 1)
        miss_some(history.engine, slot)
        score.run_once(now)
        snapshots.run_once(now, fence)
        checkpoints.run_once(now, fence)
        heartbeat.beat()
        lease.keep()
        with Session(engine) as session:
            any_alive(session, "checkpoint")

    with plans.recorded() as found:
        a_pass(SLOTS)
    starting += found
    with plans.recorded() as repeated:
        for slot in range(SLOTS + 1, SLOTS + 1 + REPEATED):
            a_pass(slot)
        put_off(due, SLOTS + 1 + REPEATED)
        for late in (timedelta(hours=1), timedelta(days=2)):
            score.run_once(due.resolved_at(SLOTS + 1 + REPEATED) + late)
        score_with_state(engine, due, SLOTS + 2 + REPEATED)
    return starting, repeated


def score_with_state(engine: Engine, due: ScoreHistory, slot: int) -> None:
    """A slot that is scored by a function that keeps state, and another look when nothing is due."""
    config = CrunchConfig(
        scoring_function=lambda prediction, ground_truth, state: {"value": 1.0}, stateful_scoring=True
    )
    stage = StatefulScoreStage(engine, config, SETTINGS)
    due.add_due(slot, 1)
    done = 0
    for _ in range(4):
        done += stage.run_once(due.resolved_at(slot)).counts.get("scored", 0)
    assert done == MODELS


def miss_some(engine: Engine, slot: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE predictions SET status = 'ABSENT' WHERE slot_id = :slot AND model_id = 'model-002'"),
            {"slot": f"slot-{slot:09d}"},
        )


def put_off(due: ScoreHistory, slot: int) -> None:
    """Predictions that wait for a part of the feed that never comes."""
    due.add_due(slot, 1)
    with due.engine.begin() as connection:
        connection.execute(
            text("UPDATE predictions SET resolvable_at = resolvable_at + interval '1 hour' WHERE slot_id = :slot"),
            {"slot": f"slot-{slot:09d}"},
        )


async def predict(engine: Engine, asking: Engine) -> None:
    store_prices(asking, utc_now())
    config = SCHEDULED.model_copy(update={"ensembles": [EnsembleConfig(name="main")]})
    async with ModelCluster(a=steady) as cluster, predicting(engine, cluster, config):
        before = builders.one(asking, "SELECT count(*) FROM prediction_slots WHERE status = 'CALLED'")
        await called(asking, before + 2)


async def run_round(engine: Engine, asking: Engine) -> None:
    with asking.begin() as connection:
        connection.execute(text("UPDATE models SET presence = NULL"))
    async with ModelCluster(b=doubles) as cluster, predicting(engine, cluster, TOURNAMENT):
        await until_rows(asking, PRESENT, lambda found: len(found) == 1)
        queue(engine, "r1")
        await all_called(asking)
    with transaction(engine) as session:
        give_truth(session, TOURNAMENT, "r1", [{"y": 1.0}] * 4, utc_now())
    ScoreStage(engine, TOURNAMENT, SETTINGS).run_once(utc_now())


async def feed(engine: Engine) -> None:
    venue = CandleVenue()
    process = FeedProcess(engine, venue, "feed", candle_settings("venue"))
    process.lease.keep()
    await process.steps(2)
    for _ in range(3):
        await venue.advance()
        await process.steps()
    await process.end()
    assert process.failures == []


async def backfill(engine: Engine, folder: Path) -> None:
    lease = Lease(engine, BACKFILL_LEASE, "runner")
    await asyncio.to_thread(lease.keep)
    settings = candle_settings("venue", backfill_data_dir=folder)
    venue = CandleVenue()
    runner = BackfillRunner(engine, settings, lease, venue.clock, lambda source: venue)
    await runner.step()
    await runner.close()
