"""What tests of backtests share: records in daily files, a competition, models that say what they saw."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from coordinator_node.crunch_config import CrunchConfig, ScheduledPrediction
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.backfill.files import feed_folder, stage


def walk(subject: str, times: Iterable[datetime], kind: str = "tick", granularity: str = "1s") -> list[FeedRecord]:
    """Records of a price that wanders, the same for the same subject and times."""
    rng = random.Random(subject)
    price, records = 100.0, []
    for moment in times:
        before, price = price, price * math.exp(rng.gauss(0, 2e-4))
        values = {"price": price}
        if kind == "candle":
            low, high = sorted((before, price))
            values = {"open": before, "high": high, "low": low, "close": price, "volume": 1.0}
        records.append(FeedRecord("simulated", subject, kind, granularity, moment, values))
    return records


def every(seconds: float, start: datetime, end: datetime) -> list[datetime]:
    return [start + n * timedelta(seconds=seconds) for n in range(int((end - start).total_seconds() / seconds))]


def write_files(root: Path, records: Iterable[FeedRecord]) -> Path:
    """The records as a coordinator's backfill writes them, below the root."""
    by_feed: dict[tuple[str, str, str, str], list[FeedRecord]] = {}
    for record in records:
        by_feed.setdefault((record.source, record.subject, record.kind, record.granularity), []).append(record)
    for feed, own in by_feed.items():
        for day in stage(feed_folder(root, *feed), own):
            day.publish()
    return root


def sign_times_return(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    profit = ground_truth["profit"]
    return {"value": profit if prediction["value"] > 0 else -profit, "actual_return": profit}


def config_of(*subjects: str, interval: int = 60, horizon: int = 60, **fields: Any) -> CrunchConfig:
    schedules = [
        ScheduledPrediction(
            scope_key=f"{subject}-{horizon}",
            scope={"subject": subject},
            prediction_interval_seconds=interval,
            resolve_horizon_seconds=horizon,
            order=order,
        )
        for order, subject in enumerate(subjects or ("BTC",))
    ]
    return CrunchConfig(**{"scoring_function": sign_times_return, "scheduled_predictions": schedules, **fields})


class Momentum:
    """Bets on the newest move of its window."""

    def __init__(self, records: int = 2) -> None:
        self.records = records
        self.closes: dict[str, list[float]] = {}

    def tick(self, data: dict[str, Any]) -> None:
        self.closes[data["symbol"]] = [candle["close"] for candle in data["candles_1m"]]

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        closes = self.closes[subject][-self.records :]
        return {"value": 1000 * (closes[-1] - closes[0]) / closes[0]}
