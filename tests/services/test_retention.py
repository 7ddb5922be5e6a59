"""Retention: all of a day, then one an hour; and the inputs' raw data that nobody needs any more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import builders
import pytest
from builders import START, one, rows
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.db.tables import EnsembleWeightsRow, LeaderboardRow
from coordinator_node.entities.ensemble import ensemble_model_id
from coordinator_node.runtime.leases import LeaseFence, LeaseLostError
from coordinator_node.services import retention
from coordinator_node.services.retention import Retention

NOW = START + timedelta(days=10)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def fence(engine: Engine) -> LeaseFence:
    with Session(engine) as session:
        held = builders.lease(session)
        session.commit()
    return held


def leaderboards(session: Session, *times: datetime) -> None:
    session.add_all(LeaderboardRow(created_at=time, entries_jsonb=[]) for time in times)
    session.flush()


def kept(engine: Engine) -> list[datetime]:
    return [row["created_at"] for row in rows(engine, "SELECT created_at FROM leaderboards ORDER BY 1")]


def run(engine: Engine, fence: LeaseFence, now: datetime = NOW, **environ: str) -> None:
    Retention(engine, builders.settings_of(**environ)).run_if_due(now, fence)


def test_of_old_leaderboards_the_last_of_each_hour_stays(engine: Engine, fence: LeaseFence) -> None:
    old = [NOW - 3 * DAY + timedelta(minutes=minutes) for minutes in (0, 20, 59, 60, 119, 300)]
    edge = [NOW - DAY - timedelta(minutes=30), NOW - DAY - timedelta(minutes=1)]
    young = [NOW - DAY + timedelta(minutes=minutes) for minutes in (0, 1, 2)]
    with Session(engine) as session:
        leaderboards(session, *old, *edge, *young)
        session.commit()
    run(engine, fence)
    assert kept(engine) == [old[2], old[4], old[5], edge[1], *young]
    run(engine, fence, NOW + 2 * DAY)
    assert kept(engine) == [old[2], old[4], old[5], edge[1], young[2]]


def test_without_a_limit_hours_are_kept_for_ever_and_with_one_so_many_days(engine: Engine, fence: LeaseFence) -> None:
    times = [NOW - days * DAY for days in (9, 5, 3)]
    with Session(engine) as session:
        leaderboards(session, *times)
        session.commit()
    run(engine, fence)
    assert kept(engine) == times
    run(engine, fence, LEADERBOARD_TTL_DAYS="4")
    assert kept(engine) == times[2:]


def test_it_looks_once_an_hour(engine: Engine, fence: LeaseFence) -> None:
    kept_up = Retention(engine, builders.settings_of(LEADERBOARD_TTL_DAYS="4"))
    kept_up.run_if_due(NOW, fence)
    with Session(engine) as session:
        leaderboards(session, NOW - 9 * DAY)
        session.commit()
    kept_up.run_if_due(NOW + HOUR - timedelta(seconds=1), fence)
    assert len(kept(engine)) == 1
    kept_up.run_if_due(NOW + HOUR, fence)
    assert kept(engine) == []


def test_weights_are_thinned_alike_and_the_newest_stay_in_force(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        for name, ages in (("one", (72.0, 71.9, 71.8, 50.0)), ("two", (200.0,))):
            model_id = ensemble_model_id(name)
            builders.model(session, model_id)
            session.add_all(
                EnsembleWeightsRow(model_id=model_id, computed_at=NOW - age * HOUR, weights_jsonb={}) for age in ages
            )
        leaderboards(session, NOW - 9 * DAY)
        session.commit()
    weights = "SELECT model_id, computed_at FROM ensemble_weights ORDER BY model_id, computed_at"
    run(engine, fence)
    assert [row["computed_at"] for row in rows(engine, weights)] == [
        NOW - 72.0 * HOUR + timedelta(hours=0.2),
        NOW - 50.0 * HOUR,
        NOW - 200.0 * HOUR,
    ]
    run(engine, fence, LEADERBOARD_TTL_DAYS="1")
    assert [row["computed_at"] for row in rows(engine, weights)] == [NOW - 50.0 * HOUR, NOW - 200.0 * HOUR]


def test_an_old_input_loses_what_the_models_were_given_once_its_truth_is_known(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "INPUTS_AT_ONCE", 2)
    raw: dict[str, Any] = {"candles_1m": [1]}
    with Session(engine) as session:
        for n, (days, status) in enumerate([(9, "RESOLVED"), (9, "RECEIVED"), (8, "RESOLVED"), (1, "RESOLVED")]):
            values = {"received_at": NOW - days * DAY, "status": status, "actuals_jsonb": {"profit": 1}}
            builders.market_input(session, id=f"i{n}", raw_data_jsonb=raw, **values)
        session.commit()
    run(engine, fence)
    assert one(engine, "SELECT count(*) FROM inputs WHERE raw_data_jsonb = '{}'") == 0
    run(engine, fence, INPUT_TTL_DAYS="5")
    emptied = rows(engine, "SELECT id, actuals_jsonb FROM inputs WHERE raw_data_jsonb = '{}' ORDER BY id")
    assert emptied == [{"id": "i0", "actuals_jsonb": {"profit": 1}}, {"id": "i2", "actuals_jsonb": {"profit": 1}}]


def test_a_lost_lease_deletes_nothing(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        leaderboards(session, NOW - 9 * DAY, NOW - 9 * DAY + timedelta(minutes=1))
        session.connection().execute(text("UPDATE leases SET epoch = 2"))
        session.commit()
    with pytest.raises(LeaseLostError):
        run(engine, fence)
    assert len(kept(engine)) == 2
