"""The history of a sampled kind: a venue's observations, page after page, as records."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing

from coordinator_node.entities.times import event_time
from coordinator_node.feeds.contracts import FeedDataRecord
from coordinator_node.feeds.micros import epoch_micros
from coordinator_node.feeds.venue.sampling import Bar, IntervalSampler, Observation, ceil_ms, floor_ms
from coordinator_node.feeds.venue.session import History

type Pages = AsyncGenerator[Sequence[Observation], None]


async def sampled_history(
    pages: Pages,
    *,
    size_ms: int,
    start_ms: int,
    end_ms: int | None,
    settled_ms: int,
    limit: int | None,
    record: Callable[[Bar], FeedDataRecord],
) -> History:
    """The records of the intervals that are over, with start_ms <= ts_event < end_ms; at most `limit`, the oldest.

    `pages` gives the observations from the start of the first interval on, in their order, for as long as it is asked.
    An interval is over if a later observation is there, or if it ended at or before `settled_ms`.
    """
    sampler = IntervalSampler(size_ms, floor_ms(start_ms, size_ms))
    stop_ms = None if end_ms is None else ceil_ms(end_ms, size_ms)
    records: list[FeedDataRecord] = []

    def take(bar: Bar) -> bool:
        """Keeps the bar's record if it was asked for; True once there are enough."""
        made = record(bar)
        if start_ms <= record_ms(made) and (end_ms is None or record_ms(made) < end_ms):
            records.append(made)
        return limit is not None and len(records) >= limit

    async with aclosing(pages):
        async for page in pages:
            for bar in _over(sampler, page):
                if take(bar):
                    return History(records, bar.start_ms + size_ms)
            if stop_ms is not None and sampler.start_ms >= stop_ms:
                return History(records, stop_ms)
    settled_start = floor_ms(settled_ms, size_ms)
    if sampler.start_ms < settled_start:
        last = sampler.cut()
        if last is not None and take(last):
            return History(records, last.start_ms + size_ms)
    complete_until = max(sampler.start_ms, settled_start)
    return History(records, complete_until if stop_ms is None else min(complete_until, stop_ms))


def record_ms(record: FeedDataRecord) -> int:
    """The time of a record that is at a whole millisecond, in epoch milliseconds."""
    return epoch_micros(event_time(record.ts_event)) // 1000


def _over(sampler: IntervalSampler, page: Sequence[Observation]) -> Iterator[Bar]:
    for seen in page:
        span = sampler.add(seen)
        if span is not None and span.bar is not None:
            yield span.bar
