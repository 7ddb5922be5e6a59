"""History of a feed, fetched on request. Its names are here; its work is not built yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coordinator_node.db.backfill_jobs import DBBackfillJobRepository
from coordinator_node.db.feed_records import DBFeedRecordRepository
from coordinator_node.entities.errors import NotBuiltError
from coordinator_node.feeds.base import DataFeed


@dataclass(frozen=True)
class BackfillRequest:
    """What to fetch: the records of a feed's subjects from `start` to `end`, `page_size` records at a time.

    `cursor_ts` is where an interrupted fetch goes on, None for one that starts. `job_id` is the job that is told of the
    progress, None for none.
    """

    source: str
    subjects: tuple[str, ...]
    kind: str
    granularity: str
    start: datetime
    end: datetime
    page_size: int = 500
    cursor_ts: datetime | None = None
    job_id: str | None = None


@dataclass
class BackfillResult:
    """What a fetch has done."""

    records_written: int = 0
    pages_fetched: int = 0


class BackfillService:
    """Fetches history page by page. It can be made; `run` raises NotBuiltError."""

    def __init__(
        self,
        feed: DataFeed,
        repository: DBFeedRecordRepository,
        job_repository: DBBackfillJobRepository | None = None,
    ) -> None:
        self.feed = feed
        self.repository = repository
        self.job_repository = job_repository

    async def run(self, request: BackfillRequest) -> BackfillResult:
        """Fetch and store all that the request asks for."""
        raise NotBuiltError(
            "backfill (BackfillService.run)",
            "FEED_BACKFILL_MINUTES says how much history the feed worker fetches when it starts",
        )
