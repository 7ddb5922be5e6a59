"""The base class of every model of this competition."""

from __future__ import annotations

from typing import Any


class TrackerBase:
    """Keeps the newest closing prices of each subject; a model implements `predict`."""

    def __init__(self) -> None:
        self.closes: dict[str, list[float]] = {}

    def tick(self, data: dict[str, Any]) -> None:
        """Take new market data: {"symbol", "asof_ts", "candles_1m": [{ts, open, high, low, close, volume}...]}."""
        self.closes[data["symbol"]] = [candle["close"] for candle in data["candles_1m"]]

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        """Answer for the subject and the horizon; the README says with what."""
        raise NotImplementedError("a model answers here")

    def past_return(self, subject: str, records: int) -> float:
        """The return over so many of the newest records, in basis points; 0 while there are too few."""
        closes = self.closes.get(subject, [])
        if len(closes) <= records or closes[-1 - records] <= 0:
            return 0.0
        return (closes[-1] / closes[-1 - records] - 1.0) * 10_000
