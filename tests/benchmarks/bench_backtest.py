"""How fast a backtest plays: 30 days of one-minute candles, a prediction a minute, a model that does next to nothing.

Run by `make bench-backtest`. A bar is a record that became known. The time is all of it: reading the files, playing,
resolving, scoring and measuring; `model` is the share of it that was spent in the model's own code. `cpu` counts the
processor's time instead of the clock's, for a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backtest_cases import config_of, every, walk, write_files

from coordinator_node.backtest import BacktestRunner

START = datetime(2025, 1, 1, tzinfo=UTC)
# Bars a second by the number of records in a window.
TARGETS = {120: 4_000, 1: 20_000}


class Trivial:
    """Says whether the newest candle rose."""

    def tick(self, data: dict[str, Any]) -> None:
        self.newest = data["candles_1m"][-1]

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        return {"value": self.newest["close"] - self.newest["open"]}


def main() -> None:
    """Play each window's size, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30)
    days = parser.parse_args().days
    end = START + timedelta(days=days)
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        records = walk("BTC", every(60, START - timedelta(hours=3), end + timedelta(hours=1)), "candle", "1m")
        root = write_files(Path(folder), records)
        del records
        for window, target in TARGETS.items():
            gc.collect()
            begun = time.process_time()
            runner = BacktestRunner(Trivial, config_of("BTC"), data=root, window=window)
            effort = runner.run(START, end).effort
            cpu = time.process_time() - begun
            print(
                f"window {window:>3}: {effort.bars / effort.seconds:>9,.0f} bars/s ({effort.bars / cpu:,.0f} cpu),"
                f" model {effort.model_seconds / effort.seconds:.1%}, target {target:,}"
            )


if __name__ == "__main__":
    main()
