"""The sources that the shared suite runs for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import pytest
from feed_cases import Case, trades, two_subject_candles

from coordinator_node.feeds.replay import ReplayFeed
from coordinator_node.feeds.simulated import SimulatedFeed
from coordinator_node.feeds.simulated.price_path import second_candles


def fresh_simulation(clock: Callable[[], datetime]) -> SimulatedFeed:
    """As in a process that was just started: nothing computed yet."""
    second_candles.cache_clear()
    return SimulatedFeed(clock=clock)


@pytest.fixture(params=["simulated tick", "simulated candle", "replay candle", "replay tick"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param.startswith("simulated"):
        return Case(fresh_simulation, request.param.split()[1], "1s", ("BTC", "ETH"))
    if request.param == "replay candle":
        path = two_subject_candles(tmp_path / "candles.parquet")
        return Case(lambda clock: ReplayFeed(path, Fraction(60), clock=clock), "candle", "1m", ("XRP", "ADA"))
    path = trades(tmp_path / "XRPETH-trades.csv")
    return Case(lambda clock: ReplayFeed(path, Fraction(3), clock=clock), "tick", "1s", ("XRPETH",))
