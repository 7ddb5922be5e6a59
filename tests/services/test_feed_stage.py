"""The feed stage: nothing lost, nothing doubled, whatever the source, the lease and the database do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from coordinator_node.config.settings import Settings
from coordinator_node.db.engine import transaction
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds.base import FeedSink
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord, FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.errors import PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.listening import ListeningTask
from coordinator_node.runtime.leases import Lease
from coordinator_node.services.feed_data import service as feed_stage
from coordinator_node.services.feed_data.service import FeedService, lease_name
from coordinator_node.services.feed_data.store import prune_records, read_watermark, store_records

START = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = Settings(feed_source="venue", feed_subjects=("BTC", "ETH"), feed_backfill_minutes=1)


def record(subject: str, second: int, **values: Any) -> FeedDataRecord:
    at = int(START.timestamp()) + second
    return FeedDataRecord("venue", subject, FeedDataKind.TICK, "1s", at, values or {"price": 100.0 + second})


class Venue:
    """A source whose history is a list, and which is told when to let its listener hear something."""

    def __init__(self) -> None:
        self.history: list[FeedDataRecord] = []
        self.fetches: list[FeedFetchRequest] = []
        self.failures: list[Exception] = []
        self.refused: set[str] = set()
        self.sink: FeedSink | None = None
        self.crash = asyncio.Event()

    async def list_subjects(self) -> Sequence[Any]:
        return []

    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> ListeningTask:
        if "UNKNOWN" in sub.subjects:
            raise PermanentFeedError("no subject UNKNOWN")
        self.sink = sink

        async def run(stopping: asyncio.Event) -> None:
            crashed = asyncio.ensure_future(self.crash.wait())
            stopped = asyncio.ensure_future(stopping.wait())
            await asyncio.wait((crashed, stopped), return_when=asyncio.FIRST_COMPLETED)
            crashed.cancel()
            stopped.cancel()
            self.sink = None
            if self.crash.is_set():
                raise RuntimeError("socket thread died")

        return ListeningTask("venue", run)

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        self.fetches.append(req)
        if self.failures:
            raise self.failures.pop(0)
        if self.refused & set(req.subjects):
            raise PermanentFeedError("delisted")
        found = [r for r in self.history if r.subject in req.subjects and req.start_ts <= r.ts_event < req.end_ts]
        return sorted(found, key=lambda r: r.ts_event)[: req.limit]

    async def say(self, *records: FeedDataRecord) -> None:
        assert self.sink is not None
        for item in records:
            await self.sink.on_record(item)


class Stage:
    """A feed stage with a clock of its own, and the tasks it put in the background."""

    def __init__(self, engine: Engine, venue: Venue, holder: str = "one", settings: Settings = SETTINGS) -> None:
        self.second = 60
        self.lease = Lease(engine, lease_name(settings), holder)
        self.lease.keep()
        self.watches: list[asyncio.Task[None]] = []
        self.service = FeedService(engine, venue, settings, self.lease, self.clock, lambda: None, self._background)

    def clock(self) -> datetime:
        return START + timedelta(seconds=self.second)

    async def step(self) -> dict[str, int]:
        return (await self.service.step()).counts

    def _background(self, work: Any) -> None:
        self.watches.append(asyncio.create_task(work))


def stored(engine: Engine) -> list[tuple[str, int]]:
    query = "SELECT subject, EXTRACT(EPOCH FROM ts_event)::bigint AS at FROM feed_records ORDER BY subject, ts_event"
    with engine.connect() as connection:
        return [(row.subject, row.at - int(START.timestamp())) for row in connection.execute(text(query))]


def watermark(engine: Engine, subject: str) -> datetime | None:
    with transaction(engine) as session:
        return read_watermark(session, "venue", subject, "tick", "1s")


async def test_it_starts_with_history_then_stores_what_it_hears_and_moves_the_watermark(engine: Engine) -> None:
    venue = Venue()
    venue.history = [record(s, i) for s in ("BTC", "ETH") for i in range(60)] + [record("BTC", -5)]
    stage = Stage(engine, venue)
    counts = await stage.step()
    assert counts["caught_up"] == 120
    assert stored(engine) == [(s, i) for s in ("BTC", "ETH") for i in range(60)]
    assert watermark(engine, "BTC") == START + timedelta(seconds=59)
    await venue.say(record("BTC", 60), record("BTC", 61), record("ETH", 60))
    assert (await stage.step())["records"] == 3
    assert watermark(engine, "BTC") == START + timedelta(seconds=61)
    assert watermark(engine, "ETH") == START + timedelta(seconds=60)
    await stage.service.close()


async def test_what_is_heard_while_it_catches_up_is_stored_afterwards_and_once(engine: Engine) -> None:
    venue = Venue()
    venue.history = [record("BTC", i) for i in range(60)]
    stage = Stage(engine, venue)
    await stage.service._listen()
    await venue.say(record("BTC", 59), record("BTC", 60))
    counts = await stage.step()
    assert (counts["caught_up"], counts["records"]) == (60, 1)
    assert stored(engine) == [("BTC", i) for i in range(61)]
    await stage.service.close()


async def test_a_restart_fetches_from_the_watermark_page_after_page(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_stage, "PAGE_RECORDS", 7)
    venue = Venue()
    venue.history = [record("BTC", i) for i in range(30)]
    first = Stage(engine, venue)
    await first.step()
    await first.service.close()
    first.lease.release()
    venue.history += [record("BTC", i) for i in range(30, 100)]
    second = Stage(engine, venue, "two")
    second.second = 100
    await second.step()
    assert stored(engine) == [("BTC", i) for i in range(100)]
    await second.service.close()


async def test_a_page_full_of_one_second_does_not_stop_the_paging(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_stage, "PAGE_RECORDS", 4)
    venue = Venue()
    base = START.timestamp()
    venue.history = [
        FeedDataRecord("venue", "BTC", FeedDataKind.TICK, "1s", base + second + part / 4, {"price": 1.0})
        for second in range(5)
        for part in range(4)
    ]
    stage = Stage(engine, venue)
    await stage.step()
    assert len(stored(engine)) == 20
    await stage.service.close()


async def test_a_failing_fetch_is_tried_again_and_loses_nothing(engine: Engine) -> None:
    venue = Venue()
    venue.history = [record(s, i) for s in ("BTC", "ETH") for i in range(60)]
    venue.failures = [RetryableFeedError("busy")]
    stage = Stage(engine, venue)
    with pytest.raises(RetryableFeedError):
        await stage.step()
    await venue.say(record("BTC", 60))
    await stage.step()
    assert stored(engine) == [("BTC", i) for i in range(61)] + [("ETH", i) for i in range(60)]
    await stage.service.close()


async def test_a_subject_without_history_costs_the_others_nothing(engine: Engine) -> None:
    venue = Venue()
    venue.history = [record(s, i) for s in ("BTC", "ETH") for i in range(60)]
    venue.refused = {"BTC"}
    stage = Stage(engine, venue)
    await stage.step()
    await venue.say(record("BTC", 61))
    await stage.step()
    assert stored(engine) == [("BTC", 61)] + [("ETH", i) for i in range(60)]
    await stage.service.close()


async def test_a_record_that_cannot_be_stored_costs_only_itself(engine: Engine) -> None:
    venue = Venue()
    stage = Stage(engine, venue)
    await stage.step()
    await venue.say(record("BTC", 60), record("BTC", 61, price=float("nan")), record("BTC", 62))
    await stage.step()
    assert stored(engine) == [("BTC", 60), ("BTC", 62)]
    await stage.service.close()


async def test_who_has_lost_the_lease_writes_nothing_and_stops_listening(engine: Engine) -> None:
    venue = Venue()
    stage = Stage(engine, venue)
    await stage.step()
    await venue.say(record("BTC", 60))
    stage.lease.release()
    assert not any((await stage.step()).values())
    assert stored(engine) == []
    assert venue.sink is None
    await asyncio.gather(*stage.watches)


async def test_a_listening_that_crashes_is_seen(engine: Engine) -> None:
    venue = Venue()
    stage = Stage(engine, venue)
    await stage.step()
    venue.crash.set()
    with pytest.raises(RuntimeError, match="socket thread died"):
        await stage.watches[0]


async def test_a_subject_that_the_source_does_not_have_stops_the_worker(engine: Engine) -> None:
    stage = Stage(engine, Venue(), settings=SETTINGS.model_copy(update={"feed_subjects": ("UNKNOWN",)}))
    with pytest.raises(ConfigurationError, match="UNKNOWN"):
        await stage.step()


def feed_record(second: int, price: float) -> FeedRecord:
    return FeedRecord("venue", "BTC", "tick", "1s", START + timedelta(seconds=second), {"price": price})


def test_a_stored_time_stays_as_it_is_and_the_watermark_never_moves_back(engine: Engine) -> None:
    with transaction(engine) as session:
        assert store_records(session, [feed_record(10, 1.0), feed_record(11, 2.0), feed_record(10, 3.0)], START) == 2
    with transaction(engine) as session:
        assert store_records(session, [feed_record(5, 9.0), feed_record(11, 9.0)], START) == 1
        assert store_records(session, [], START) == 0
    assert watermark(engine, "BTC") == START + timedelta(seconds=11)
    with engine.connect() as connection:
        prices = connection.execute(text("SELECT values_jsonb->>'price' FROM feed_records ORDER BY ts_event")).scalars()
        assert list(prices) == ["9.0", "1.0", "2.0"]


def test_retention_deletes_the_oldest_in_batches(engine: Engine) -> None:
    with transaction(engine) as session:
        store_records(session, [feed_record(second, 1.0) for second in range(10)], START)
    with transaction(engine) as session:
        assert prune_records(session, START + timedelta(seconds=5), 3) == 3
    assert stored(engine) == [("BTC", second) for second in range(3, 10)]
    with transaction(engine) as session:
        assert prune_records(session, START + timedelta(seconds=5), 3) == 2
