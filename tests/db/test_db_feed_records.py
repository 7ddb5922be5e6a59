from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlmodel import Session

from coordinator_node.db import DBFeedRecordRepository
from coordinator_node.entities.feed_record import FeedIngestionState, FeedRecord

T0 = datetime(2026, 1, 1, 12, 0, 0, 250000, tzinfo=UTC)
FEED = {"source": "binance", "subject": "BTC", "kind": "tick", "granularity": "1s"}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def record(seconds: float = 0, price: float = 1.0, **more: Any) -> FeedRecord:
    return FeedRecord(
        **{**FEED, "ts_event": at(seconds), "values": {"price": price}, "ts_ingested": at(seconds + 1), **more}
    )


def state(seconds: float | None, **more: Any) -> FeedIngestionState:
    when = None if seconds is None else at(seconds)
    return FeedIngestionState(**{**FEED, "last_event_ts": when, "updated_at": at(1000), **more})


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine, expire_on_commit=False) as opened:
        yield opened


@pytest.fixture
def repository(session: Session) -> DBFeedRecordRepository:
    return DBFeedRecordRepository(session)


def test_a_record_comes_back_as_it_was_appended(repository: DBFeedRecordRepository, engine: Engine) -> None:
    saved = record(values={"price": 1.5, "size": None}, meta={"trade": 7})
    assert repository.append_records([saved]) == 1
    with Session(engine) as other:
        assert DBFeedRecordRepository(other).fetch_records(**FEED) == [saved]


def test_a_time_is_stored_once_and_takes_the_newer_values(repository: DBFeedRecordRepository) -> None:
    repository.append_records([record(price=1)])
    again = record(price=2, meta={"corrected": True}, ts_ingested=at(50))
    assert repository.append_records([again, record(1), record(1, price=3)]) == 2
    found = repository.fetch_records(**FEED)
    assert [(one.ts_event, one.values, one.meta, one.ts_ingested) for one in found] == [
        (at(0), {"price": 2}, {"corrected": True}, at(1)),
        (at(1), {"price": 3}, {}, at(2)),
    ]


def test_a_large_batch_takes_few_statements(repository: DBFeedRecordRepository, engine: Engine) -> None:
    count = 0

    def one(*_: object) -> None:
        nonlocal count
        count += 1

    event.listen(engine, "before_cursor_execute", one)
    assert repository.append_records(record(n) for n in range(2500)) == 2500
    assert count <= 4
    assert repository.append_records([]) == 0
    assert len(repository.fetch_records(**FEED)) == 2500


def test_a_record_that_is_not_finite_is_named_and_none_is_stored(repository: DBFeedRecordRepository) -> None:
    with pytest.raises(ValueError, match=r"record of binance/BTC/tick/1s at 2026-01-01T12:00:01.*values"):
        repository.append_records([record(), record(1, price=float("inf"))])
    assert repository.fetch_records(**FEED) == []


def test_records_are_fetched_by_time_newest_kept_ascending(repository: DBFeedRecordRepository) -> None:
    repository.append_records([record(n, price=n) for n in (3, 0, 2, 1)])
    repository.append_records([record(9, subject="ETH"), record(9, source="pyth"), record(9, granularity="1m")])

    def prices(**more: Any) -> list[float]:
        return [one.values["price"] for one in repository.fetch_records(**FEED, **more)]

    assert prices() == [0, 1, 2, 3]
    assert prices(limit=2) == [2, 3]
    assert prices(start_ts=at(1), end_ts=at(2)) == [1, 2]
    assert prices(start_ts=at(1).replace(tzinfo=None), end_ts=at(3), limit=1) == [3]


def test_the_latest_record_may_be_asked_for_at_a_time(repository: DBFeedRecordRepository) -> None:
    assert repository.fetch_latest_record(**FEED) is None
    repository.append_records([record(n) for n in range(3)])
    assert repository.fetch_latest_record(**FEED) == record(2)
    assert repository.fetch_latest_record(**FEED, at_or_before=at(1)) == record(1)
    assert repository.fetch_latest_record(**FEED, at_or_before=at(1.5)) == record(1)
    assert repository.fetch_latest_record(**FEED, at_or_before=at(-1)) is None


def test_pruning_deletes_what_is_older(repository: DBFeedRecordRepository) -> None:
    repository.append_records([record(n) for n in range(4)])
    assert repository.prune_before(at(2)) == 2
    assert repository.prune_before(at(2)) == 0
    assert repository.fetch_records(**FEED) == [record(2), record(3)]


def test_the_tail_is_newest_first(repository: DBFeedRecordRepository) -> None:
    repository.append_records([*(record(n) for n in range(30)), record(99, subject="ETH")])
    tail = repository.tail_records()
    assert len(tail) == 20
    assert [one.ts_event for one in tail[:3]] == [at(99), at(29), at(28)]
    assert [one.subject for one in repository.tail_records(subject="ETH", limit=5)] == ["ETH"]
    assert [one.ts_event for one in repository.tail_records(**FEED, limit=2)] == [at(29), at(28)]


def test_feeds_are_listed_with_their_watermarks(repository: DBFeedRecordRepository) -> None:
    assert repository.list_indexed_feeds() == []
    repository.append_records([record(0), record(5), record(1, subject="ETH")])
    repository.set_watermark(state(5))
    assert repository.list_indexed_feeds() == [
        {
            **FEED,
            "record_count": 2,
            "oldest_ts": at(0),
            "newest_ts": at(5),
            "watermark_ts": at(5),
            "watermark_updated_at": at(1000),
        },
        {
            **FEED,
            "subject": "ETH",
            "record_count": 1,
            "oldest_ts": at(1),
            "newest_ts": at(1),
            "watermark_ts": None,
            "watermark_updated_at": None,
        },
    ]


def test_a_watermark_comes_back_as_it_was_set(repository: DBFeedRecordRepository) -> None:
    assert repository.get_watermark(**FEED) is None
    repository.set_watermark(state(5, meta={"page": 2}))
    repository.set_watermark(state(1, subject="ETH"))
    assert repository.get_watermark(**FEED) == state(5, meta={"page": 2})


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([None, 3], 3),
        ([3, None], 3),
        ([3, 2], 3),
        ([3, 3], 3),
        ([3, 4, 1], 4),
        ([None, None], None),
    ],
)
def test_a_watermark_never_moves_backwards(
    repository: DBFeedRecordRepository, steps: list[float | None], kept: float | None
) -> None:
    for step in steps:
        repository.set_watermark(state(step))
    assert repository.get_watermark(**FEED) == state(kept)
