"""The stages of a competition that goes on and on hold no more of it in memory; `make soak` asks whole processes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import builders
import pytest
from backtest_cases import Momentum, config_of, every, walk
from live_predict import predicting
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import Aggregation, AggregationWindow
from coordinator_node.db.engine import transaction
from coordinator_node.services.feed_data.store import store_records
from coordinator_node.services.predict import grid
from coordinator_node.services.score import score_stage
from coordinator_node.services.snapshot import SnapshotStage

START = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
INTERVAL = 120
# The window holds an hour: 30 slots. What is measured begins once it is full.
WARM_UP, MEASURED = 35, 40
MOST_BYTES_A_SLOT = 1000
ENVIRON = {
    "FEED_SOURCE": "simulated",
    "FEED_SUBJECTS": "BTC",
    "FEED_CANDLES_WINDOW": "5",
    "SCORE_INTERVAL_SECONDS": str(INTERVAL),
}


@contextmanager
def tracing() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_no_slot_leaves_anything_behind_in_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # The test's clock stands still while models answer; on a busy machine that may take longer than a deadline.
    monkeypatch.setattr(grid, "DEADLINE_SHARE", 10.0)
    monkeypatch.setattr(grid, "DEADLINE_MOST_SHARE", 10.0)
    windows = {"score_recent": AggregationWindow(hours=1)}
    config = config_of("BTC", interval=INTERVAL, aggregation=Aggregation(windows=windows))
    settings = load_settings(ENVIRON)
    slots = every(INTERVAL, START, START + timedelta(seconds=INTERVAL * (WARM_UP + MEASURED)))
    with transaction(engine) as session:
        store_records(session, walk("BTC", every(30, START - timedelta(minutes=5), slots[-1])), START)
    with Session(engine) as session:
        fence = builders.lease(session)
        session.commit()
    scores, snapshots = score_stage(engine, config, settings), SnapshotStage(engine, config, settings)
    models = {f"model-{number}": Momentum(number) for number in (2, 3, 4)}

    with tracing():
        async with predicting(engine, config, models, ENVIRON, START - timedelta(seconds=1)) as step:
            before = 0
            for number, moment in enumerate(slots):
                await step(moment)
                while scores.run_once(moment).again:
                    pass
                while snapshots.run_once(moment, fence).again:
                    pass
                if number == WARM_UP:
                    before = held()
            grown = held() - before

    counted = builders.rows(engine, "SELECT count(*) AS scores FROM scores WHERE snapshot_state = 'COUNTED'")
    assert counted[0]["scores"] > len(models) * (len(slots) - 3)
    assert grown < MOST_BYTES_A_SLOT * MEASURED
