"""The simulated source: realistic prices of any subject, the same whenever and by whomever they are asked for.

A record depends on the seed, the subject and its time alone, so a restarted worker, a second machine and a backfill
get identical records. `price_path` says how the prices move. They reward skill: over a week of one-second ticks (BTC,
seed 7) the Spearman information coefficient of the last 20 s' return with the next 15 s' return is 0.29; with 15 to
30 s back and 10 to 30 s ahead it is between 0.25 and 0.34, and about the same for other subjects.

- `tick` (price, volume) at every mark of the granularity, counted from the Unix epoch: the last price, and the volume
  since the mark before.
- `candle` (open, high, low, close, volume), `ts_event` its open time, opening at the same marks. A candle equals the
  aggregate of the shorter ones inside it exactly, volume included.

Option: `FEED_OPT_seed` (a whole number, 7 by default).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Self

from coordinator_node.entities.granularity import GRANULARITY_SECONDS, granularity_seconds
from coordinator_node.entities.times import from_epoch, utc_now
from coordinator_node.feeds.computed import ComputedFeed
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord, SubjectDescriptor
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.micros import epoch_micros
from coordinator_node.feeds.options import read_options
from coordinator_node.feeds.simulated.price_path import Candles, candles

KINDS = (FeedDataKind.TICK, FeedDataKind.CANDLE)
DEFAULT_SEED = 7


class SimulatedFeed(ComputedFeed):
    """Prices made from a seed; see the module for what they are."""

    source = "simulated"

    def __init__(self, seed: int = DEFAULT_SEED, *, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(clock)
        self._seed = seed

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """Made from the FEED_OPT_ options; raises PermanentFeedError for one that is unknown or wrong."""
        text = read_options(cls.source, options, {"seed"}).get("seed", str(DEFAULT_SEED))
        try:
            return cls(int(text))
        except ValueError:
            raise PermanentFeedError(f"FEED_OPT_seed is {text!r}: set it to a whole number, such as 7") from None

    async def list_subjects(self) -> Sequence[SubjectDescriptor]:
        """Three well-known subjects; any other name that is not empty is served as well."""
        names = {"BTC": "Bitcoin", "ETH": "Ether", "SOL": "Solana"}
        return [
            SubjectDescriptor(
                symbol=symbol,
                display_name=f"{name} (simulated)",
                kinds=KINDS,
                granularities=tuple(GRANULARITY_SECONDS),
                source=self.source,
            )
            for symbol, name in names.items()
        ]

    def check(self, subjects: Sequence[str], kind: str, granularity: str) -> None:
        """Every subject and every granularity; ticks and candles only."""
        if kind not in KINDS:
            raise PermanentFeedError(
                f"FEED_SOURCE=simulated has no {kind} records: set FEED_KIND=tick or FEED_KIND=candle"
            )

    def history(
        self, subject: str, kind: str, granularity: str, start: datetime, end: datetime
    ) -> list[FeedDataRecord]:
        """The records at the granularity's marks in [start, end)."""
        size = granularity_seconds(granularity)
        first, stop = _mark_from(start, size), _mark_from(end, size)
        # A tick is what the candle that ends at its mark ended with.
        opens_before = size if kind == FeedDataKind.TICK else 0
        found = candles(self._seed, subject, size, first - opens_before, stop - opens_before)
        rows = _tick_values(found) if kind == FeedDataKind.TICK else _candle_values(found)
        return [
            FeedDataRecord(
                source=self.source,
                subject=subject,
                kind=FeedDataKind(kind),
                granularity=granularity,
                ts_event=from_epoch(mark),
                values=values,
            )
            for mark, values in zip(range(first, stop, size), rows, strict=True)
        ]


def _mark_from(moment: datetime, size: int) -> int:
    """The first mark at or after a moment, in epoch seconds."""
    return -(-epoch_micros(moment) // (size * 1_000_000)) * size


def _tick_values(found: Candles) -> list[dict[str, float]]:
    return [
        {"price": price, "volume": volume}
        for price, volume in zip(found.close.tolist(), found.volume.tolist(), strict=True)
    ]


def _candle_values(found: Candles) -> list[dict[str, float]]:
    names = [column.name for column in fields(Candles)]
    columns = [getattr(found, name).tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
