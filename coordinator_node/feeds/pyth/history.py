"""Pyth's past updates, page after page.

Only the first update of each second counts: it is all that the venue keeps, and what its stream is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from coordinator_node.feeds.pyth.client import WINDOW_SECONDS, PythClient
from coordinator_node.feeds.pyth.prices import PriceUpdate
from coordinator_node.feeds.venue.sampled_history import Pages
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

BEHIND_SECONDS = 180
"""How far Benchmarks may be behind Hermes: what it has of the last minutes is completed by Hermes."""

LONG_SECONDS = 10.0
"""A history that takes longer than this says so before it begins."""


@dataclass(frozen=True)
class PastPrices:
    """The past of one feed up to its newest update, at `newest` epoch seconds.

    `needed` is about how many seconds of it are going to be read.
    """

    client: PythClient
    feed_id: str
    subject: str
    newest: int
    needed: int

    async def all_updates(self, start: int, end: int) -> Pages:
        """The updates from `start` on, and at least one at or after `end` if there is one; epoch seconds."""
        end = min(end, self.newest)
        self._announce(self.needed // (WINDOW_SECONDS + 1) + 1)
        while start <= end:
            found = await self.client.window(self.feed_id, self.subject, start)
            yield [each.observation() for each in found]
            window_end = start + WINDOW_SECONDS
            seen_until = found[-1].publish_time if found else start - 1
            start = window_end + 1
            if not found or window_end > self.newest - BEHIND_SECONDS:
                async for update in self._one_by_one(seen_until + 1, min(window_end, end)):
                    yield [update.observation()]
                    start = max(start, update.publish_time)

    async def last_updates(self, start: int, end: int, size: int) -> Pages:
        """The last update of each interval of `size` seconds from `start` up to `end`, both multiples of it.

        And at least one at or after `end`, if there is one.
        """
        self._announce(self.needed // size + 1)
        while start <= min(end, self.newest):
            # No later second than the newest has an update yet.
            last, after = await self._last_in(start, min(start + size, self.newest + 1))
            if last is not None:
                yield [last.observation()]
            if after is None:
                start += size
            else:
                start = after.publish_time // size * size

    async def _one_by_one(self, start: int, end: int) -> AsyncGenerator[PriceUpdate, None]:
        """The updates from `start` to `end`, and the first one after it; a request each."""
        while start <= end:
            update = await self.client.price_at(self.feed_id, self.subject, start)
            if update is None:
                return
            yield update
            start = update.publish_time + 1

    async def _last_in(self, start: int, end: int) -> tuple[PriceUpdate | None, PriceUpdate | None]:
        """The last update from `start` to before `end`; or None and the first one after, where there is none.

        Hermes finds the first update after a time, not the last one before it. As a feed has one about every second,
        the search begins at the last second, and doubles its step back as long as it finds nothing.
        """
        last = await self._first_in(end - 1, end)
        if last is not None:
            return last, None
        first = await self.client.price_at(self.feed_id, self.subject, start)
        if first is None or first.publish_time >= end:
            return None, first
        known, empty_from, step = first, end - 1, 1
        while empty_from > known.publish_time + 1:
            probe = max(known.publish_time + 1, empty_from - step)
            found = await self._first_in(probe, empty_from)
            if found is None:
                empty_from, step = probe, 2 * step
            else:
                known, step = found, 1
        return known, None

    async def _first_in(self, start: int, end: int) -> PriceUpdate | None:
        update = await self.client.price_at(self.feed_id, self.subject, start)
        return update if update is not None and update.publish_time < end else None

    def _announce(self, requests: int) -> None:
        seconds = self.client.bucket.seconds_for(requests)
        if seconds > LONG_SECONDS:
            log.info(
                "a long history: Pyth allows few requests",
                subject=self.subject,
                requests=requests,
                seconds=round(seconds),
            )
