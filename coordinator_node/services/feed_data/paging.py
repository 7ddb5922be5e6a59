"""A feed's past, page after page, however long it is and however little of it a source gives at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.json_values import reason_of
from coordinator_node.feeds.base import DataFeed, spacing_of
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord, FeedFetchRequest, known_delay
from coordinator_node.feeds.errors import FeedError, MalformedRecordError, PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.micros import MICROSECOND
from coordinator_node.feeds.validation import AskedFor, to_feed_record
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import unless

log = get_logger(__name__)

PAGE_RECORDS = 1000


def is_final(record: FeedRecord) -> bool:
    """Whether a record will stay as it is: a source marks a candle that still runs with `final` False in its meta."""
    return record.meta.get("final") is not False


@dataclass(frozen=True)
class Page:
    """Records in time order, each time of the stretch once, and `upto`: all before it has been given."""

    records: list[FeedRecord]
    upto: datetime


class HistoryReader:
    """Reads the past of one feed's subjects, in whole seconds, as sources written for 0.1.84 take them."""

    def __init__(
        self,
        feed: DataFeed,
        source: str,
        kind: str,
        granularity: str,
        clock: Callable[[], datetime],
        stop: asyncio.Event | None = None,
    ) -> None:
        """Work on one kind and granularity of a source, by the name under which its records are stored.

        What it is asked is given up when `stop` is set.

        Raises:
            ValueError: a kind or granularity that no feed has.
        """
        self.spacing = timedelta(seconds=spacing_of(feed, granularity))
        self.known_after = known_delay(kind, self.spacing.total_seconds())
        self._far_apart = self.known_after >= timedelta(seconds=1)
        self._feed = feed
        self._source = source
        self._kind = FeedDataKind(kind)
        self._granularity = granularity
        self._clock = clock
        self._stop = stop or asyncio.Event()

    async def pages(
        self, subject: str, start: datetime, end: datetime, page_records: int = PAGE_RECORDS
    ) -> AsyncGenerator[Page]:
        """The records with start <= ts_event < end that are known by now, so that a running candle is never given.

        Records that cannot be stored are told in the log and left out. A page may be empty of records.

        Raises:
            StoppedError: the worker is to end.
            FeedError: what the source raises; PermanentFeedError also where no record of a full page can be read.
        """
        end = min(end, self._clock() - self.known_after + MICROSECOND)
        second = math.floor(start.timestamp())
        while start < end:
            answer = await self._ask(subject, second, end, page_records)
            page = answer.page_from(start)
            if page is None and answer.size >= page_records:
                page = await self._whole_second(subject, start, end, answer)
            if page is None:
                return
            yield page
            start = page.upto
            # Another tick may share the last one's second; candles are further apart.
            second = math.ceil(start.timestamp()) if self._far_apart else math.floor(start.timestamp())
            if answer.size < page_records and start + self.spacing > end:
                return

    async def _whole_second(self, subject: str, start: datetime, end: datetime, answer: _Answer) -> Page:
        """The second that `start` is in, at once: a full page of it brought nothing beyond `start`."""
        if answer.refused is not None:
            raise PermanentFeedError(f"no record of a full page can be read: {answer.refused}")
        second = math.floor(start.timestamp())
        upto = min(datetime.fromtimestamp(second + 1, UTC), end)
        found = (await self._ask(subject, second, upto, None)).page_from(start)
        return Page(found.records if found else [], upto)

    async def _ask(self, subject: str, start_second: int, end: datetime, limit: int | None) -> _Answer:
        request = FeedFetchRequest(
            subjects=(subject,),
            kind=self._kind,
            granularity=self._granularity,
            start_ts=start_second,
            end_ts=math.ceil(end.timestamp()),
            limit=limit,
        )
        given = await unless(self._stop, self._fetch(request))
        records: list[FeedRecord] = []
        refused: MalformedRecordError | None = None
        now = self._clock()
        asked_for = AskedFor(self._source, (subject,), self._kind, self._granularity)
        for record in given:
            try:
                records.append(asked_for.named(to_feed_record(record, now)))
            except MalformedRecordError as error:
                refused = refused or error
        if refused is not None:
            log.warning("records refused", count=len(given) - len(records), first=str(refused))
        return _Answer(len(given), [r for r in records if r.ts_event < end and is_final(r)], refused)

    async def _fetch(self, request: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        try:
            return await self._feed.fetch(request)
        except FeedError:
            raise
        except Exception as error:  # an operator's source may raise anything; nothing says that it will do so again
            raise RetryableFeedError(f"fetching {'/'.join(request.subjects)} failed: {reason_of(error)}") from error


@dataclass(frozen=True)
class _Answer:
    """What a source gave: how many records, those that can be stored, and why the first of the others cannot."""

    size: int
    records: list[FeedRecord]
    refused: MalformedRecordError | None

    def page_from(self, start: datetime) -> Page | None:
        """What is new in it; None where it brings nothing from `start` on."""
        new = {record.ts_event: record for record in self.records if record.ts_event >= start}
        if not new:
            return None
        return Page([new[at] for at in sorted(new)], max(new) + MICROSECOND)
