"""What the score leader keeps for long charts: always what the rows would give if they were summed up now."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import builders
import pytest
from builders import at, one, rows
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.db.series.buckets import make_prediction_buckets, make_snapshot_buckets
from coordinator_node.db.series.mark import kept_span
from coordinator_node.db.series.spans import Span
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.snapshot import SnapshotStage, series

HOUR = 3600.0
TABLES = {
    "prediction_buckets": "width_seconds, begins_at, model_id, scope_key, prediction_config_id",
    "snapshot_buckets": "width_seconds, ends_at, model_id",
}


@pytest.fixture
def fence(engine: Engine) -> LeaseFence:
    with Session(engine) as session:
        held = builders.lease(session)
        session.commit()
    return held


def stage_of(engine: Engine, **aggregation: Any) -> SnapshotStage:
    config = CrunchConfig.model_validate({"metrics": [], "aggregation": aggregation})
    return SnapshotStage(engine, config, builders.settings_of())


def predict(engine: Engine, seconds: list[float], *, scored: bool = True) -> list[str]:
    """Predictions of two models; ids of those that are not scored."""
    waiting = []
    with Session(engine) as session:
        for second in seconds:
            for model_id in ("a", "b"):
                times = {"performed_at": at(second), "resolvable_at": at(second + 60)}
                if scored:
                    builders.scored(session, model_id, second, **times)
                else:
                    market_input = builders.market_input(session).id
                    waiting.append(builders.prediction(session, model_id, market_input, **times).id)
        session.commit()
    return waiting


def buckets(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    return {table: rows(engine, f"SELECT * FROM {table} ORDER BY {order}") for table, order in TABLES.items()}


def made_anew(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """The same tables, made at once from what is stored now."""
    kept = kept_now(engine)
    assert kept is not None
    with transaction(engine) as session:
        for table in TABLES:
            session.connection().exec_driver_sql(f"DELETE FROM {table}")
        make_prediction_buckets(session.connection(), [kept], "value")
        make_snapshot_buckets(session.connection(), [kept], "value")
    return buckets(engine)


def kept_now(engine: Engine, field: str = "value") -> Span | None:
    with engine.connect() as connection:
        return kept_span(connection, field)


def run(stage: SnapshotStage, fence: LeaseFence, now: datetime, passes: int = 1) -> None:
    for _ in range(passes):
        stage.run_once(now, fence)


def test_buckets_follow_what_is_counted_early_and_late(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        builders.model(session, "b")
        session.commit()
    predict(engine, [-9 * HOUR, -8.9 * HOUR, -HOUR])
    waiting = predict(engine, [-2 * HOUR, 30.0], scored=False)
    stage = stage_of(engine)
    run(stage, fence, at(HOUR), passes=50)
    kept = kept_now(engine)
    assert kept is not None
    assert kept.begin <= at(-9 * HOUR)
    assert at(HOUR) - timedelta(minutes=10) < kept.end < at(HOUR)
    assert one(engine, "SELECT sum(points) FROM prediction_buckets WHERE width_seconds = 300") == 10
    assert one(engine, "SELECT sum(value_count) FROM prediction_buckets WHERE width_seconds = 86400") == 6
    with Session(engine) as session:
        for number, prediction_id in enumerate(waiting):
            builders.score(session, prediction_id, 5.0 + number)
        session.commit()
    predict(engine, [-5 * HOUR])
    run(stage, fence, at(HOUR + 1))
    found = buckets(engine)
    assert one(engine, "SELECT sum(value_count) FROM prediction_buckets WHERE width_seconds = 300") == 12
    assert one(engine, "SELECT sum(snapshots) FROM snapshot_buckets WHERE width_seconds = 300") == one(
        engine, "SELECT count(*) FROM snapshots"
    )
    assert found == made_anew(engine)
    predict(engine, [HOUR + 30])
    run(stage, fence, at(2 * HOUR), passes=6)
    assert one(engine, "SELECT sum(value_count) FROM prediction_buckets WHERE width_seconds = 3600") == 14
    assert buckets(engine) == made_anew(engine)


@pytest.mark.parametrize("way", ["back", "ahead"])
def test_a_pass_sums_up_so_many_rows_at_most(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Of what was there before the first pass, and of what came while nobody kept anything."""
    monkeypatch.setattr(series, "MOST_ROWS", 6)
    with Session(engine) as session:
        builders.model(session, "a")
        builders.model(session, "b")
        session.commit()
    stage = stage_of(engine)
    if way == "ahead":
        predict(engine, [-300 * HOUR])
        run(stage, fence, at(-290 * HOUR), passes=3)
    # Two predictions at each; the last ones are more than a pass takes, and all in one bucket.
    seconds = [-200 * HOUR, -100 * HOUR, *(-9 * HOUR + 400 * place for place in range(7)), *map(float, range(5))]
    predict(engine, seconds)
    kept_points = "SELECT COALESCE(sum(points), 0) FROM prediction_buckets WHERE width_seconds = 300"
    grown = [one(engine, kept_points)]
    while len(grown) < 50 and (len(grown) < 3 or grown[-1] > grown[-2]):
        run(stage, fence, at(HOUR))
        grown.append(one(engine, kept_points))
    assert grown[-1] == one(engine, "SELECT count(*) FROM predictions")
    steps = [after - before for before, after in pairwise(grown)]
    assert sorted(steps)[-1] == 10
    assert sorted(steps)[-2] <= 6
    assert buckets(engine) == made_anew(engine)


def test_nothing_is_kept_of_an_empty_database(engine: Engine, fence: LeaseFence) -> None:
    run(stage_of(engine), fence, at(HOUR))
    assert kept_now(engine) is None
    assert buckets(engine) == {"prediction_buckets": [], "snapshot_buckets": []}


def test_another_value_field_is_summed_up_anew(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        prediction = builders.prediction(session, "a", builders.market_input(session).id, status="SCORED")
        builders.score(session, prediction.id, result_jsonb={"value": 1.0, "pnl": 7.0, "success": True})
        session.commit()
    run(stage_of(engine), fence, at(HOUR), passes=8)
    assert one(engine, "SELECT value_total FROM prediction_buckets WHERE width_seconds = 3600") == 1.0
    run(stage_of(engine, value_field="pnl"), fence, at(HOUR), passes=8)
    assert kept_now(engine) is None
    assert kept_now(engine, "pnl") is not None
    assert one(engine, "SELECT value_total FROM prediction_buckets WHERE width_seconds = 3600") == 7.0
    assert one(engine, "SELECT total FROM snapshot_buckets WHERE width_seconds = 3600") == 7
