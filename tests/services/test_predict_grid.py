"""The schedule grid, and what is refused before a model is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig, ScheduledPrediction
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.times import from_epoch
from coordinator_node.services.predict.grid import Schedule, deadline_seconds
from coordinator_node.services.predict.schedules import check_schedules
from coordinator_node.services.predict.startup import check_predict

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(1_600_000_000_000_000, 2_200_000_000_000_000).map(
    lambda micros: EPOCH + timedelta(microseconds=micros)
)


def schedule(interval: int = 15, offset: float = 0.0, horizon: int = 60, deadline: float = 6.0) -> Schedule:
    return Schedule("id", "BTC-60", {}, interval, horizon, offset, deadline)


@given(MOMENTS, st.integers(1, 86_400), st.integers(0, 90_000).map(lambda tenths: tenths / 10))
def test_a_moment_lies_between_its_slot_and_the_next(now: datetime, interval: int, offset: float) -> None:
    grid = schedule(interval, offset)
    index = grid.index_at(now)
    assert grid.slot_at(index) <= now < grid.slot_at(index + 1)
    assert grid.slot_at(index + 1) - grid.slot_at(index) == timedelta(seconds=interval)
    first = grid.first_index_from(now)
    assert grid.slot_at(first - 1) < now <= grid.slot_at(first)
    assert grid.index_at(grid.slot_at(index)) == index == grid.first_index_from(grid.slot_at(index))


def test_slots_lie_on_whole_intervals_of_the_epoch_shifted_by_the_offset() -> None:
    assert schedule(15).slot_at(2) == from_epoch(30)
    assert schedule(15, 7.5).slot_at(2) == from_epoch(37.5)
    assert schedule(horizon=60).resolvable_at(from_epoch(30)) == from_epoch(90)
    assert schedule(deadline=0.5).deadline_at(from_epoch(30)) == from_epoch(30.5)


@pytest.mark.parametrize(
    ("horizon", "timeout", "own", "expected"),
    [
        (60, 60, None, 6),  # a tenth of the horizon
        (3600, 60, None, 60),  # the runner's timeout
        (60, 60, 2.5, 2.5),  # the schedule's own
        (60, 60, 50, 6),  # which cannot lengthen it
        (3, 60, None, 0.5),  # at least half a second
        (1, 60, None, 0.5),
        (0, 60, None, 60),  # live trading: no bound by the horizon
        (0, 60, 5, 5),
    ],
)
def test_the_deadline_is_the_smallest_of_three(
    horizon: int, timeout: float, own: float | None, expected: float
) -> None:
    assert deadline_seconds(horizon, timeout, own) == expected


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_an_answer_never_takes_more_than_half_the_horizon(horizon: float, timeout: float) -> None:
    assert 0 < deadline_seconds(horizon, timeout) <= min(timeout, horizon / 2)


def config(**fields: Any) -> CrunchConfig:
    return CrunchConfig(scheduled_predictions=[ScheduledPrediction(**{"scope_key": "S", **fields})])


def test_a_horizon_shorter_than_the_feeds_spacing_is_refused_with_both_numbers() -> None:
    settings = Settings()
    with pytest.raises(ConfigurationError, match=r"schedule S: its horizon of 30 s .* spacing of 60 s"):
        check_schedules(config(resolve_horizon_seconds=30), settings, 60.0)
    check_schedules(config(resolve_horizon_seconds=60), settings, 60.0)
    check_schedules(config(resolve_horizon_seconds=0), settings, 60.0)
    check_schedules(config(resolve_horizon_seconds=30, active=False), settings, 60.0)


def test_an_argument_that_no_scope_holds_is_refused() -> None:
    wanting = config(resolve_horizon_seconds=60)
    wanting.call_method = CallMethodConfig(args=[CallMethodArg(name="strike", type="FLOAT")])
    with pytest.raises(ConfigurationError, match="call_method predict needs strike"):
        check_schedules(wanting, Settings(), 1.0)
    wanting.scheduled_predictions[0].scope["strike"] = 100.0
    check_schedules(wanting, Settings(), 1.0)


@pytest.mark.parametrize("deadline", ["soon", 0, -1, True])
def test_a_deadline_that_is_no_time_is_refused(deadline: object) -> None:
    with pytest.raises(ConfigurationError, match=r"schedule S: meta\.deadline_seconds"):
        check_schedules(config(resolve_horizon_seconds=60, meta={"deadline_seconds": deadline}), Settings(), 1.0)


def test_two_schedules_that_could_not_be_told_apart_are_refused() -> None:
    same = [ScheduledPrediction(scope_key="S"), ScheduledPrediction(scope_key="S", meta={"offset_seconds": 30})]
    with pytest.raises(ValueError, match=r"two schedules have the scope_key 'S'.* give each a scope_key of its own"):
        CrunchConfig(scheduled_predictions=same)


def test_a_predict_service_of_ones_own_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="predict_service_class Own"):
        check_predict(CrunchConfig(predict_service_class=type("Own", (), {})), Settings())
