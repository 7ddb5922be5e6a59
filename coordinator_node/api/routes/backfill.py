"""History on request: jobs that fetch it, and the files they write."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from coordinator_node.api.answers import has_it
from coordinator_node.api.auth import ADMIN, READ
from coordinator_node.api.context import Context
from coordinator_node.api.errors import not_found
from coordinator_node.api.pages import PAGED, Paging
from coordinator_node.api.parameters import Limit, Text
from coordinator_node.api.routes.feeds import MOST_FEEDS, feeds
from coordinator_node.db.reports.backfill import JobPlace, job_by_id, newest_jobs
from coordinator_node.db.reports.records import Record
from coordinator_node.entities.prediction import BackfillStatus
from coordinator_node.feeds import create_default_registry
from coordinator_node.schemas.report.backfill import BackfillFile, BackfillJob, BackfillOrder, FeedPart
from coordinator_node.schemas.report.feeds import FeedSummary
from coordinator_node.schemas.report.wire import Problem
from coordinator_node.services.backfill.files import find_file, list_files
from coordinator_node.services.backfill.jobs import BackfillBusyError, HistoryRange, request_job

router = APIRouter(tags=["backfill"])

MOST_FILES = 5000
CHUNK_BYTES = 256 * 1024
PARQUET = "application/vnd.apache.parquet"

Status = Annotated[BackfillStatus | None, Query(description="Only those of this status; all when left out.")]
FilePart = Annotated[str, Path(description="A part of the file's path, as the index gives it.")]
UNKNOWN_JOB: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such job."}}
BUSY: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "A job is running or waits to."}}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {PARQUET: {"schema": {"type": "string", "format": "binary"}}}, "description": "The file."},
    304: {"description": "It is still the one that If-None-Match names."},
    404: {"model": Problem, "description": "There is no such file."},
}


@router.get("/reports/backfill/feeds", dependencies=[ADMIN])
def backfill_feeds(context: Context) -> list[FeedSummary]:
    """The feeds whose history may be wanted: those with records, and those of the settings, by name."""
    known = {(each.source, each.subject, each.kind, each.granularity): each for each in feeds(context)}
    settings = context.settings
    for subject in settings.feed_subjects:
        feed = (settings.feed_source, subject, settings.feed_kind, settings.feed_granularity)
        known.setdefault(feed, _without_records(*feed))
    return [known[feed] for feed in sorted(known)][:MOST_FEEDS]


@router.post("/reports/backfill", dependencies=[ADMIN], status_code=201, responses=BUSY)
def order_backfill(context: Context, order: BackfillOrder) -> BackfillJob:
    """Ask for history. The feed worker fetches it; an end in the future becomes now."""
    sources = create_default_registry().providers()
    if order.source not in sources:
        raise HTTPException(422, f"there is no source {order.source}; there is {', '.join(sources)}")
    try:
        with context.database.writing() as session:
            made = request_job(session, HistoryRange(**order.model_dump()), context.clock())
            row = made.model_dump()
    except BackfillBusyError as error:
        raise HTTPException(409, str(error)) from error
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return _job(row)


@router.get("/reports/backfill/jobs", dependencies=[ADMIN], responses=PAGED)
def backfill_jobs(context: Context, pages: Paging, status: Status = None, limit: Limit = 100) -> list[BackfillJob]:
    """Jobs, newest first."""
    after = pages.after(JobPlace)
    with context.database.reading_own_writes() as connection:
        found = newest_jobs(connection, status=status, limit=limit + 1, after=after)
    return [_job(row) for row in pages.page(found, limit, JobPlace.of)]


@router.get("/reports/backfill/jobs/{job_id}", dependencies=[ADMIN], responses=UNKNOWN_JOB)
def backfill_job(context: Context, job_id: Annotated[Text, Path(description="A job's id.")]) -> BackfillJob:
    """One job and how far it has come."""
    with context.database.reading_own_writes() as connection:
        row = job_by_id(connection, job_id)
    if row is None:
        raise not_found(f"backfill job {job_id}")
    return _job(row)


@router.get("/data/backfill/index", dependencies=[READ])
def backfill_index(
    context: Context,
    source: Annotated[FeedPart | None, Query(description="Where it comes from; all when left out.")] = None,
    subject: Annotated[FeedPart | None, Query(description="What it is about; all when left out.")] = None,
    kind: Annotated[FeedPart | None, Query(description="tick, candle, depth or funding; all when left out.")] = None,
    granularity: Annotated[FeedPart | None, Query(description="Such as 1s or 1m; all when left out.")] = None,
) -> list[BackfillFile]:
    """The files of the feeds that match, by path; of more than 5,000 those of the newest days."""
    files = list_files(context.settings.backfill_data_dir, source, subject, kind, granularity, MOST_FILES)
    return [BackfillFile(path=f.path, date=f.day, records=f.records, size_bytes=f.size_bytes) for f in files]


@router.get(
    "/data/backfill/{source}/{subject}/{kind}/{granularity}/{file}",
    dependencies=[READ],
    response_class=StreamingResponse,
    responses=FILE,
)
def backfill_file(
    context: Context,
    request: Request,
    source: FilePart,
    subject: FilePart,
    kind: FilePart,
    granularity: FilePart,
    file: FilePart,
) -> Response:
    """One day's records, as they are on the disk; nothing, where the caller has them already."""
    path = find_file(context.settings.backfill_data_dir, source, subject, kind, granularity, file)
    opened = None if path is None else _opened(path)
    if opened is None:
        raise not_found(f"file {source}/{subject}/{kind}/{granularity}/{file}")
    # Asked of the open file, because another may take its name at any moment.
    stat = os.fstat(opened.fileno())
    etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    if has_it(request, etag):
        opened.close()
        return Response(status_code=304, headers={"ETag": etag})
    disposition = f'attachment; filename="{file}"'
    headers = {"Content-Length": str(stat.st_size), "Content-Disposition": disposition, "ETag": etag}
    return StreamingResponse(_chunks(opened), media_type=PARQUET, headers=headers)


def _opened(path: pathlib.Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _chunks(opened: BinaryIO) -> Iterator[bytes]:
    with opened:
        while chunk := opened.read(CHUNK_BYTES):
            yield chunk


def _job(row: Record) -> BackfillJob:
    return BackfillJob(**row, progress_pct=_progress_pct(row))


def _progress_pct(row: Record) -> float:
    if row["status"] == BackfillStatus.COMPLETED:
        return 100.0
    whole = (row["end_ts"] - row["start_ts"]).total_seconds()
    done = (row["cursor_ts"] - row["start_ts"]).total_seconds() if row["cursor_ts"] else 0.0
    return round(min(max(100.0 * done / whole, 0.0), 100.0), 2) if whole > 0 else 0.0


def _without_records(source: str, subject: str, kind: str, granularity: str) -> FeedSummary:
    return FeedSummary(
        source=source,
        subject=subject,
        kind=kind,
        granularity=granularity,
        record_count=0,
        oldest_ts=None,
        newest_ts=None,
        watermark_ts=None,
        watermark_updated_at=None,
    )
