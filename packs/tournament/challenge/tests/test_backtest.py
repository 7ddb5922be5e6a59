"""Rounds come by request: a backtest says that there is nothing to play."""

import pytest

from coordinator_node.entities.errors import ConfigurationError
from starter_challenge.backtest import BacktestRunner
from starter_challenge.tracker import TrackerBase


def test_there_is_nothing_to_play(tmp_path):
    with pytest.raises(ConfigurationError, match="rounds come by request"):
        BacktestRunner(model=TrackerBase(), data=tmp_path).run("2026-10-01", "2026-10-02")
