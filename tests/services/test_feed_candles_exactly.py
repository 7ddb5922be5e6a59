"""Whatever happens to venue, worker and lease: the stored candles are the venue's closed candles, exactly."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable
from datetime import datetime

from candle_venue import (
    MINUTE,
    START,
    SUBJECTS,
    CandleVenue,
    FeedProcess,
    candle,
    expire_leases,
    open_time,
    stored_minutes,
    watermark,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from coordinator_node.feeds import FeedDataRecord
from coordinator_node.feeds.errors import RetryableFeedError

FIRST = 51  # ten minutes of history before the venue's clock starts, five seconds past 60
EXAMPLES = itertools.count()

type Said = Callable[[list[FeedDataRecord]], Iterable[FeedDataRecord]]

HEARD: dict[str, Said] = {
    "all": list,
    "none": lambda said: [],
    "one subject's": lambda said: said[:1],
    "twice": lambda said: said + said,
    "the other way round": lambda said: said[::-1],
    "malformed": lambda said: [malformed(record) for record in said],
    "with the running candle": lambda said: [*said, *map(running, said)],
}


def malformed(record: FeedDataRecord) -> FeedDataRecord:
    return FeedDataRecord(**{**vars(record), "values": {**record.values, "close": float("nan")}})


def running(record: FeedDataRecord) -> FeedDataRecord:
    minute = (int(record.ts_event) - int(START.timestamp())) // 60 + 1
    return candle(record.source, record.subject, minute, part=0.1)


class World:
    """The venue, and the worker of the moment; what it has replaced may still be alive and not know it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.venue = CandleVenue(f"venue{next(EXAMPLES)}")
        self.venue.most = 7
        self.processes: list[FeedProcess] = []
        self.watermarks: dict[str, datetime] = {}

    async def start(self) -> None:
        """Another worker takes over."""
        expire_leases(self.engine)
        self.processes.append(FeedProcess(self.engine, self.venue, f"worker{len(self.processes)}"))
        self.processes[-1].lease.keep()
        await self.processes[-1].steps()

    async def happens(self, event: str, detail: int) -> None:
        if event in HEARD:
            for _ in range(detail):
                await self.venue.advance(HEARD[event])
                await self.step()
        else:
            await getattr(self, event.replace(" ", "_"))(detail)
        await self.step()

    async def disconnected(self, _: int) -> None:
        self.venue.drop_streams()

    async def stalled(self, _: int) -> None:
        self.venue.stalled = True
        for _ in range(7):
            await self.venue.advance()
            await self.step()
        self.venue.stalled = False

    async def fetching_fails(self, times: int) -> None:
        self.venue.fetch_failures += [RetryableFeedError("busy", retry_after=times * 50.0)] * times
        self.venue.drop_streams()
        for heard in ("none", "all"):
            await self.venue.advance(HEARD[heard])
            await self.step()

    async def listening_fails(self, times: int) -> None:
        self.venue.listen_failures += [RetryableFeedError("refused")] * times
        self.venue.drop_streams()

    async def killed(self, _: int) -> None:
        await self.processes.pop().kill()
        await self.start()

    async def lease_lost(self, _: int) -> None:
        await self.start()

    async def hole(self, minutes: int) -> None:
        self.venue.holes |= {(SUBJECTS[minutes % 2], self.minute + ahead) for ahead in range(minutes)}

    async def mixed_up(self, minutes: int) -> None:
        said: list[FeedDataRecord] = []
        for _ in range(minutes):
            await self.venue.advance(lambda new: said.extend(new) or [])
        random.Random(minutes).shuffle(said)
        await self.venue.say(*said)

    @property
    def minute(self) -> int:
        return (self.venue.now - START) // MINUTE

    async def step(self) -> None:
        for process in self.processes[-3:]:
            await process.steps()
        self.check()

    def check(self) -> None:
        """Nothing stored that the venue has not, nothing missing behind a watermark, which never moves back."""
        for subject in SUBJECTS:
            minutes = stored_minutes(self.engine, self.venue.source, subject)
            reached = watermark(self.engine, self.venue.source, subject)
            if reached is not None:
                assert reached >= self.watermarks.get(subject, reached)
                self.watermarks[subject] = reached
                assert [m for m in minutes if open_time(m) <= reached] == self.venue.closed(
                    subject, FIRST, reached + MINUTE
                )

    async def settle(self) -> None:
        """Nothing happens any more; minutes pass until every pause is over."""
        self.venue.fetch_failures.clear()
        self.venue.listen_failures.clear()
        for _ in range(4):
            await self.venue.advance()
            await self.step()
            await self.step()


FAULTS = (
    "mixed up",
    "disconnected",
    "stalled",
    "fetching fails",
    "listening fails",
    "killed",
    "lease lost",
    "hole",
)
EVENTS = st.tuples(st.sampled_from([*HEARD, *FAULTS]), st.integers(1, 3))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=1, max_size=8))
def test_stored_candles_equal_the_venues(engine: Engine, events: list[tuple[str, int]]) -> None:
    async def history() -> None:
        world = World(engine)
        await world.start()
        for event, detail in events:
            await world.happens(event, detail)
        await world.settle()
        for process in world.processes:
            await process.end()
        for subject in SUBJECTS:
            assert stored_minutes(engine, world.venue.source, subject) == world.venue.closed(subject, FIRST)

    asyncio.run(history())
