"""A market of the operator's own, written against the feed classes of 0.1.84: whole seconds as int."""

import asyncio
import math
import time

from coordinator_node.feeds import (
    DataFeed,
    FeedDataKind,
    FeedDataRecord,
    FeedFetchRequest,
    FeedHandle,
    FeedSettings,
    FeedSink,
    FeedSubscription,
    SubjectDescriptor,
)


class PaperHandle(FeedHandle):
    def __init__(self, task: asyncio.Task):
        self._task = task

    async def stop(self) -> None:
        self._task.cancel()


class PaperExchange(DataFeed):
    def __init__(self, base: float):
        self.base = base

    async def list_subjects(self):
        return [
            SubjectDescriptor(
                symbol="ETH",
                display_name="Paper ether",
                kinds=(FeedDataKind.CANDLE,),
                granularities=("1s",),
                source="paper",
            )
        ]

    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> FeedHandle:
        async def run() -> None:
            told = int(time.time()) - 1
            while True:
                while told < int(time.time()) - 1:
                    told += 1
                    for subject in sub.subjects:
                        await sink.on_record(self._candle(subject, told))
                await asyncio.sleep(0.1)

        return PaperHandle(asyncio.create_task(run()))

    async def fetch(self, req: FeedFetchRequest):
        end = min(req.end_ts or int(time.time()), int(time.time()))
        start = req.start_ts if req.start_ts is not None else end - 100
        seconds = range(start, end)[: req.limit]
        return [self._candle(subject, second) for subject in req.subjects for second in seconds]

    def _price(self, second: int) -> float:
        return self.base * (1.0 + 0.001 * math.sin(second / 7) + 0.0005 * math.sin(second / 2.3))

    def _candle(self, subject: str, second: int) -> FeedDataRecord:
        opened, closed = self._price(second), self._price(second + 1)
        return FeedDataRecord(
            source="paper",
            subject=subject,
            kind=FeedDataKind.CANDLE,
            granularity="1s",
            ts_event=second,
            values={
                "open": opened,
                "high": max(opened, closed),
                "low": min(opened, closed),
                "close": closed,
                "volume": 1.0,
            },
        )


def create(settings: FeedSettings) -> PaperExchange:
    return PaperExchange(float(settings.options.get("base", "100")))
