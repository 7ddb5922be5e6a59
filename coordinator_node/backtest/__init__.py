"""Backtests: a model over past records, by the very functions that run it live."""

from __future__ import annotations

from coordinator_node.backtest.result import BacktestResult, BacktestSet
from coordinator_node.backtest.rounds import Round, read_rounds, write_rounds
from coordinator_node.backtest.runner import BacktestRunner

__all__ = ["BacktestResult", "BacktestRunner", "BacktestSet", "Round", "read_rounds", "write_rounds"]
