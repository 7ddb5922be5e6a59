"""The worker's clock: steady, and set right by the database's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coordinator_node.runtime.clock import TOLERANCE, WorkerClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Machine:
    """A wall clock that may jump, and a steady one."""

    def __init__(self) -> None:
        self.wall = NOON
        self.steady = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def clock(machine: Machine) -> WorkerClock:
    return WorkerClock(lambda: machine.wall, lambda: machine.steady)


def test_it_begins_with_the_wall_clock_and_goes_on_by_itself(machine: Machine, clock: WorkerClock) -> None:
    assert clock() == NOON
    machine.pass_by(90)
    machine.wall += HOUR
    assert clock() == NOON + timedelta(seconds=90)


@pytest.mark.parametrize("wrong", [HOUR, -HOUR, 2 * TOLERANCE, -2 * TOLERANCE])
def test_it_follows_the_database(machine: Machine, clock: WorkerClock, wrong: timedelta) -> None:
    asked_at = clock()
    machine.pass_by(0.1)
    clock.compare(asked_at, NOON + wrong)
    assert clock() == NOON + wrong
    machine.pass_by(5)
    assert clock() == NOON + wrong + timedelta(seconds=5)


@pytest.mark.parametrize("off", [TOLERANCE, -TOLERANCE, timedelta()])
def test_a_small_difference_is_left_alone(clock: WorkerClock, off: timedelta) -> None:
    clock.compare(clock(), NOON + off)
    assert clock() == NOON


def test_an_answer_that_took_long_says_nothing_about_the_difference(machine: Machine, clock: WorkerClock) -> None:
    asked_at = clock()
    machine.pass_by(30)
    clock.compare(asked_at, NOON + timedelta(seconds=15))
    assert clock() == NOON + timedelta(seconds=30)
