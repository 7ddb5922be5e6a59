from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from db_cases import fetch, insert, wait_until, waiting_for_locks
from sqlalchemy import Engine
from sqlmodel import Session, select

from coordinator_node.crunch_config import ScheduledPrediction
from coordinator_node.db.engine import transaction
from coordinator_node.db.schedules import sync_schedules
from coordinator_node.db.tables import ScheduledPredictionConfigRow
from coordinator_node.entities.errors import ConfigurationError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def schedule(key: str = "BTC-60", interval: int = 15, horizon: int = 60, **more: Any) -> ScheduledPrediction:
    return ScheduledPrediction(
        scope_key=key, prediction_interval_seconds=interval, resolve_horizon_seconds=horizon, **more
    )


def sync(engine: Engine, *schedules: ScheduledPrediction, now: datetime = NOW) -> None:
    with transaction(engine) as session:
        sync_schedules(session, list(schedules), now)


def rows(engine: Engine) -> dict[str, ScheduledPredictionConfigRow]:
    with Session(engine) as session:
        return {row.id: row for row in session.exec(select(ScheduledPredictionConfigRow))}


def old_row(engine: Engine, row_id: str, **changes: Any) -> None:
    row = {
        "id": row_id,
        "scope_key": "BTC-60",
        "scope_template_jsonb": "{}",
        "schedule_jsonb": '{"prediction_interval_seconds": 15, "resolve_horizon_seconds": 60}',
        "active": True,
        "order": 3,
        "meta_jsonb": None,
    }
    with engine.begin() as connection:
        insert(connection, "scheduled_prediction_configs", row | changes)


def test_new_schedules_get_ids_that_their_keys_give(engine: Engine) -> None:
    sync(
        engine,
        schedule(scope={"subject": "BTC"}, meta={"deadline_seconds": 2}),
        schedule("BTC-60", 15, 90, order=1),
        schedule("ETH-60", active=False),
    )
    found = rows(engine)
    assert sorted(found) == [
        "BTC-60-every-15s-horizon-60s",
        "BTC-60-every-15s-horizon-90s",
        "ETH-60-every-15s-horizon-60s",
    ]
    first = found["BTC-60-every-15s-horizon-60s"]
    assert first.schedule_jsonb == {"prediction_interval_seconds": 15, "resolve_horizon_seconds": 60}
    assert first.scope_template_jsonb == {"subject": "BTC"}
    assert first.meta_jsonb == {"deadline_seconds": 2}
    assert (first.active, first.activated_at) == (True, NOW)
    off = found["ETH-60-every-15s-horizon-60s"]
    assert (off.active, off.activated_at) == (False, None)


def test_doing_it_again_writes_nothing(engine: Engine) -> None:
    config = [schedule(scope={"subject": "BTC"}), schedule("ETH-60", active=False)]
    versions = "SELECT id, xmin::text FROM scheduled_prediction_configs ORDER BY id"
    sync(engine, *config)
    before = fetch(engine, versions)
    sync(engine, *config, now=LATER)
    assert fetch(engine, versions) == before


def test_reordering_changes_the_order_only(engine: Engine) -> None:
    sync(engine, schedule(order=0), schedule("ETH-60", order=1))
    before = rows(engine)
    sync(engine, schedule("ETH-60", order=0), schedule(order=1), now=LATER)
    after = rows(engine)
    assert {row_id: row.order for row_id, row in after.items()} == {
        "BTC-60-every-15s-horizon-60s": 1,
        "ETH-60-every-15s-horizon-60s": 0,
    }
    for row_id, row in after.items():
        assert row.model_dump(exclude={"order"}) == before[row_id].model_dump(exclude={"order"})


def test_scope_and_meta_change_in_place(engine: Engine) -> None:
    sync(engine, schedule(scope={"subject": "BTC"}))
    sync(engine, schedule(scope={"subject": "XBT"}, meta={"offset_seconds": 3}), now=LATER)
    [row] = rows(engine).values()
    assert row.scope_template_jsonb == {"subject": "XBT"}
    assert row.meta_jsonb == {"offset_seconds": 3}
    assert row.activated_at == NOW


def test_a_removed_schedule_rests_and_starts_anew_when_it_comes_back(engine: Engine) -> None:
    sync(engine, schedule(), schedule("ETH-60"))
    sync(engine, schedule(), now=LATER)
    resting = rows(engine)["ETH-60-every-15s-horizon-60s"]
    assert (resting.active, resting.activated_at) == (False, NOW)
    again = LATER + timedelta(hours=1)
    sync(engine, schedule(), schedule("ETH-60"), now=again)
    found = rows(engine)
    assert len(found) == 2
    assert (found["ETH-60-every-15s-horizon-60s"].active, found["ETH-60-every-15s-horizon-60s"].activated_at) == (
        True,
        again,
    )
    assert found["BTC-60-every-15s-horizon-60s"].activated_at == NOW


def test_another_interval_is_another_schedule(engine: Engine) -> None:
    sync(engine, schedule(interval=15))
    sync(engine, schedule(interval=30), now=LATER)
    assert {row_id: row.active for row_id, row in rows(engine).items()} == {
        "BTC-60-every-15s-horizon-60s": False,
        "BTC-60-every-30s-horizon-60s": True,
    }


def test_a_row_of_0_1_84_is_used_again_whatever_its_id(engine: Engine) -> None:
    old_row(engine, "0f3c")
    old_row(engine, "unreadable", schedule_jsonb='{"every_seconds": 15}')
    sync(engine, schedule(scope={"subject": "BTC"}))
    found = rows(engine)
    assert sorted(found) == ["0f3c", "unreadable"]
    assert (found["0f3c"].active, found["0f3c"].activated_at, found["0f3c"].order) == (True, NOW, 0)
    assert found["0f3c"].scope_template_jsonb == {"subject": "BTC"}
    assert found["unreadable"].active is False
    assert found["unreadable"].schedule_jsonb == {"every_seconds": 15}


def test_of_several_rows_of_one_key_the_running_one_stays(engine: Engine) -> None:
    old_row(engine, "a", active=False)
    old_row(engine, "c", order=1)
    old_row(engine, "b", order=2)
    sync(engine, schedule())
    assert {row_id: row.active for row_id, row in rows(engine).items()} == {"a": False, "b": False, "c": True}


def test_an_id_that_a_row_of_another_key_has_gets_a_number(engine: Engine) -> None:
    old_row(engine, "BTC-60-every-15s-horizon-60s", scope_key="other")
    sync(engine, schedule())
    assert {row_id: row.active for row_id, row in rows(engine).items()} == {
        "BTC-60-every-15s-horizon-60s": False,
        "BTC-60-every-15s-horizon-60s-2": True,
    }


def test_what_cannot_be_stored_names_the_schedule_and_changes_nothing(engine: Engine) -> None:
    sync(engine, schedule())
    with pytest.raises(ConfigurationError, match=r"schedule 'ETH-60': meta.weight is nan"):
        sync(engine, schedule("ETH-60", meta={"weight": float("nan")}))
    assert {row_id: row.active for row_id, row in rows(engine).items()} == {"BTC-60-every-15s-horizon-60s": True}


def test_it_does_not_commit(engine: Engine) -> None:
    with Session(engine) as session:
        sync_schedules(session, [schedule()], NOW)
    assert rows(engine) == {}


def test_two_workers_at_once_make_each_schedule_once(engine: Engine) -> None:
    config = [schedule(), schedule("ETH-60")]
    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as session:
            sync_schedules(session, config, NOW)
            second = pool.submit(sync, engine, *config, now=LATER)
            wait_until(lambda: waiting_for_locks(engine) == 1)
        second.result(timeout=30)
    found = rows(engine)
    assert len(found) == 2
    assert {row.activated_at for row in found.values()} == {NOW}
