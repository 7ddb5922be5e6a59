"""Clocks, sinks, files and sources that the feed tests share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from coordinator_node.feeds import FeedDataRecord
from coordinator_node.feeds.computed import ComputedFeed

NOON = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class FastClock:
    """A clock that stands at NOON until it is started and then runs `factor` times as fast as the real one."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._began: float | None = None

    def start(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> datetime:
        if self._began is None:
            return NOON
        return NOON + timedelta(seconds=self._factor * (time.monotonic() - self._began))


class SettableClock:
    """A clock that stands where it is set."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Recorder:
    """A sink that keeps what it gets, with the clock's time at that moment, and wakes whoever waits for a count."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._arrived = asyncio.Event()
        self.records: list[FeedDataRecord] = []
        self.heard_at: list[datetime] = []

    async def on_record(self, record: FeedDataRecord) -> None:
        self.records.append(record)
        self.heard_at.append(self._clock())
        self._arrived.set()

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.records) < count:
                self._arrived.clear()
                await self._arrived.wait()


@dataclass(frozen=True)
class Case:
    """One source to put through the shared suite; `make` gives it a clock, or the real one."""

    make: Callable[[Callable[[], datetime]], ComputedFeed]
    kind: str
    granularity: str
    subjects: tuple[str, ...]

    def known_at(self, feed: ComputedFeed, record: FeedDataRecord) -> datetime:
        assert isinstance(record.ts_event, datetime)
        closes_after = feed.spacing_seconds(self.granularity) if self.kind == "candle" else 0.0
        return record.ts_event + timedelta(seconds=closes_after)


def write_table(path: Path, columns: dict[str, list[object]]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)
    return path


def candle_columns(minutes: list[int], start: datetime, first_price: float = 100.0) -> dict[str, list[object]]:
    """Candles of one minute that open so many minutes after `start`; each has values of its own."""
    prices = [first_price + minute for minute in minutes]
    return {
        "ts_event": [start + timedelta(minutes=minute) for minute in minutes],
        "open": list(prices),
        "high": [price + 0.5 for price in prices],
        "low": [price - 0.5 for price in prices],
        "close": [price + 0.25 for price in prices],
        "volume": [10.0 * price for price in prices],
    }


TAPE_START = datetime(2019, 10, 11, 0, 0, tzinfo=UTC)


def two_subject_candles(path: Path) -> Path:
    first = candle_columns([0, 1, 2, 4, 5, 9], TAPE_START)
    second = candle_columns([0, 1, 3, 4], TAPE_START, first_price=500.0)
    subjects = ["XRP"] * 6 + ["ADA"] * 4
    return write_table(path, {"subject": subjects, **{name: first[name] + second[name] for name in first}})


def trades(path: Path) -> Path:
    """Eight trades over 11.3 s: several in one second, two at one time, and seconds without any."""
    seconds = [0.4, 0.9, 1.2, 1.2, 3.0, 3.999999, 7.5, 10.3]
    return write_table(
        path,
        {
            "ts_event": [TAPE_START + timedelta(seconds=second) for second in seconds],
            "trade_id": [str(number) for number in range(8)],
            "price": [100.0 + number for number in range(8)],
            "amount": [float(number + 1) for number in range(8)],
        },
    )
