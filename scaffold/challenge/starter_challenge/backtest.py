"""Backtests of this competition, by the code that runs it live."""

from __future__ import annotations

from typing import Any

from coordinator_node.backtest import BacktestResult, BacktestSet
from coordinator_node.backtest import BacktestRunner as EngineRunner
from coordinator_node.crunch_config import CrunchConfig as BaseConfig
from starter_challenge.config import CrunchConfig

__all__ = ["BacktestResult", "BacktestRunner", "BacktestSet"]


class BacktestRunner(EngineRunner):
    """`BacktestRunner(model=MyTracker()).run(start, end)`; the engine's own says what else it takes."""

    def __init__(self, model: Any, config: BaseConfig | None = None, **options: Any) -> None:
        super().__init__(model, CrunchConfig() if config is None else config, **options)
