"""The feeds and what they brought."""

from __future__ import annotations

from fastapi import APIRouter

from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context
from coordinator_node.api.pages import PAGED, Paging
from coordinator_node.api.parameters import Granularity, Kind, Limit, Source, Subject
from coordinator_node.db.reports.feeds import RecordPlace, feed_summaries, newest_records, record_count
from coordinator_node.schemas.report.feeds import FeedRecordEntry, FeedSummary
from coordinator_node.schemas.report.wire import object_or_empty

router = APIRouter(prefix="/reports/feeds", tags=["feeds"], dependencies=[PUBLIC])

MOST_FEEDS = 1000


@router.get("")
def feeds(context: Context) -> list[FeedSummary]:
    """Every feed with what is stored of it, by source, subject, kind and granularity."""
    with context.database.reading() as connection:
        rows = feed_summaries(connection, MOST_FEEDS)
    return [
        FeedSummary(
            source=row["source"],
            subject=row["subject"],
            kind=row["kind"],
            granularity=row["granularity"],
            record_count=record_count(row["counted"], row["counted_from"], row["oldest_ts"], row["newest_ts"]),
            oldest_ts=row["oldest_ts"],
            newest_ts=row["newest_ts"],
            watermark_ts=row["watermark_ts"],
            watermark_updated_at=row["watermark_updated_at"],
        )
        for row in rows
    ]


@router.get("/tail", responses=PAGED)
def tail(
    context: Context,
    pages: Paging,
    source: Source = None,
    subject: Subject = None,
    kind: Kind = None,
    granularity: Granularity = None,
    limit: Limit = 20,
) -> list[FeedRecordEntry]:
    """The newest records of the feeds that match, newest first."""
    after = pages.after(RecordPlace)
    with context.database.reading() as connection:
        found = newest_records(
            connection,
            source=source,
            subject=subject,
            kind=kind,
            granularity=granularity,
            limit=limit + 1,
            after=after,
        )
    rows = pages.page(found, limit, RecordPlace.of)
    return [
        FeedRecordEntry(**{**row, "values": object_or_empty(row["values"]), "meta": object_or_empty(row["meta"])})
        for row in rows
    ]
