"""Reading a source's past page after page gives each record once, whatever the pages look like."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from candle_venue import START, CandleVenue, candle, open_time
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds import FeedDataKind, FeedDataRecord, FeedFetchRequest
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.services.feed_data.paging import HistoryReader


class Ticks:
    """A source of ticks at any times, which gives `most` at once at most, whatever it is asked for."""

    def __init__(self, micros: Sequence[int], most: int) -> None:
        self.micros = sorted(micros)
        self.most = most

    async def list_subjects(self) -> Sequence[Any]:
        return []

    async def listen(self, sub: Any, sink: Any) -> Any:
        raise NotImplementedError

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        found = [m for m in self.micros if req.start_ts <= at(m).timestamp() < req.end_ts]
        limit = len(found) if req.limit is None else min(req.limit, self.most)
        return [
            FeedDataRecord("venue", "BTC", FeedDataKind.TICK, "1s", at(m), {"price": float(m)}) for m in found[:limit]
        ]


def at(micros: int) -> datetime:
    return START + timedelta(microseconds=micros)


async def read(reader: HistoryReader, start: datetime, end: datetime, page_records: int = 1000) -> list[FeedRecord]:
    return [record async for page in reader.pages("BTC", start, end, page_records) for record in page.records]


TIMES = st.lists(st.integers(0, 8_000_000) | st.sampled_from([0, 1_000_000, 2_500_000, 7_999_999]), max_size=40)


@given(TIMES, st.integers(0, 7_000_000), st.integers(0, 8_000_000), st.integers(1, 6))
def test_every_tick_of_the_stretch_once_and_in_order(micros: list[int], start: int, length: int, page: int) -> None:
    reader = HistoryReader(Ticks(micros, page), "venue", "tick", "1s", lambda: at(60_000_000))
    found = asyncio.run(read(reader, at(start), at(start + length), page))
    assert [record.ts_event for record in found] == [at(m) for m in sorted(set(micros)) if start <= m < start + length]


def test_a_source_that_gives_less_than_it_is_asked_for_is_asked_on() -> None:
    venue = CandleVenue()
    venue.most = 50
    venue.now = open_time(3000)
    reader = HistoryReader(venue, "venue", "candle", "1m", venue.clock)
    found = asyncio.run(read(reader, START, venue.now))
    assert [record.ts_event for record in found] == [open_time(minute) for minute in range(3000)]


def test_a_running_candle_is_not_given_and_neither_is_one_marked_so() -> None:
    class Marking(CandleVenue):
        async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
            return [*(candle("venue", "BTC", m) for m in range(3)), candle("venue", "BTC", 3, final=False)]

    venue = Marking()
    venue.now = open_time(4)  # by this machine's clock it has closed
    found = asyncio.run(read(HistoryReader(venue, "venue", "candle", "1m", venue.clock), START, open_time(10)))
    assert [record.ts_event for record in found] == [open_time(minute) for minute in range(3)]

    venue = CandleVenue()
    venue.now = open_time(4) - timedelta(microseconds=1)
    found = asyncio.run(read(HistoryReader(venue, "venue", "candle", "1m", venue.clock), START, open_time(10)))
    assert [record.ts_event for record in found] == [open_time(minute) for minute in range(3)]


class Spoiling(CandleVenue):
    """Gives the candles of `spoilt` minutes with a price that is no number."""

    spoilt: range = range(0)

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        given = await super().fetch(req)
        bad = {open_time(minute).timestamp() for minute in self.spoilt}
        return [
            FeedDataRecord(**{**vars(r), "values": {"close": float("nan")}}) if r.ts_event in bad else r for r in given
        ]


def test_a_malformed_record_costs_only_itself_wherever_it_stands_in_a_page() -> None:
    venue = Spoiling()
    venue.now = open_time(30)
    for spoilt in range(30):
        venue.spoilt = range(spoilt, spoilt + 1)
        found = asyncio.run(read(HistoryReader(venue, "venue", "candle", "1m", venue.clock), START, venue.now, 5))
        expected = [open_time(minute) for minute in range(30) if minute != spoilt]
        assert [record.ts_event for record in found] == expected


def test_pages_without_a_readable_record_are_an_error_and_not_the_end() -> None:
    venue = Spoiling()
    venue.now = open_time(30)
    venue.spoilt = range(10, 20)
    reader = HistoryReader(venue, "venue", "candle", "1m", venue.clock)
    with pytest.raises(PermanentFeedError, match="no record of a full page can be read"):
        asyncio.run(read(reader, START, venue.now, 5))


class Misnaming(CandleVenue):
    """An operator's source that names its records by its own lights, and adds those of other feeds."""

    def __init__(self) -> None:
        super().__init__("my exchange")

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        given = await super().fetch(req)
        spelt = [FeedDataRecord(**{**vars(record), "subject": record.subject.lower()}) for record in given]
        others = [
            FeedDataRecord(**{**vars(record), what: other})
            for record in given
            for what, other in {"subject": "ETH", "kind": "tick", "granularity": "5m"}.items()
        ]
        return [*spelt, *others]


def test_records_come_under_the_names_that_were_asked_for_or_not_at_all() -> None:
    venue = Misnaming()
    venue.now = open_time(30)
    with capture_logs() as logs:
        reader = HistoryReader(venue, "ours", "candle", "1m", venue.clock)
        found = asyncio.run(read(reader, START, venue.now, 5))
    assert {(r.source, r.subject, r.kind, r.granularity) for r in found} == {("ours", "BTC", "candle", "1m")}
    assert [record.ts_event for record in found] == [open_time(minute) for minute in range(30)]
    assert logs[0]["event"] == "records refused"
    assert logs[0]["first"] == "record of 'ETH' refused: only BTC was asked for"


def test_a_source_that_has_only_other_records_is_refused_with_the_reason() -> None:
    class Other(CandleVenue):
        async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
            given = await super().fetch(req)
            return [FeedDataRecord(**{**vars(record), "granularity": "5m"}) for record in given]

    venue = Other()
    reader = HistoryReader(venue, "venue", "candle", "1m", venue.clock)
    with pytest.raises(PermanentFeedError, match="its granularity is 5m, but 1m was asked for"):
        asyncio.run(read(reader, START, venue.now, 5))


@pytest.mark.parametrize("form", [int, float, lambda seconds: datetime.fromtimestamp(seconds, UTC), np.int64])
def test_a_sources_times_may_be_seconds_or_aware_datetimes(form: Callable[[int], Any]) -> None:
    class Formed(CandleVenue):
        async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
            return [
                FeedDataRecord(**{**vars(record), "ts_event": form(record.ts_event)})
                for record in await super().fetch(req)
            ]

    venue = Formed()
    found = asyncio.run(read(HistoryReader(venue, "venue", "candle", "1m", venue.clock), START, open_time(3)))
    assert [record.ts_event for record in found] == [open_time(minute) for minute in range(3)]
