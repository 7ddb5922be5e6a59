"""What changes, sent to clients as it does: one connection to the database listens, however many clients there are.

Notifications only wake the hub earlier; it looks every POLL_SECONDS anyway, and sends what differs from its last look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from prometheus_client import Gauge
from psycopg import sql
from sqlalchemy import Engine

from coordinator_node.api.readiness import HealthJudge
from coordinator_node.db.reports.health import FeedFact
from coordinator_node.db.reports.live import feed_watermarks, newest_checkpoints, newest_leaderboards
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.metrics import REGISTRY
from coordinator_node.runtime.notify import CHECKPOINTS, RECONNECT_SECONDS, SNAPSHOTS, libpq_url
from coordinator_node.schemas.report.live import CheckpointEvent, EventData, EventName, FeedEvent, LeaderboardEvent

log = get_logger(__name__)

POLL_SECONDS = 2.0
# A comment so often keeps proxies from ending a quiet stream, and shows the server that a client has gone.
QUIET_SECONDS = 15.0
RETRY_MILLISECONDS = 3000
MOST_CLIENTS = 5000
APPLICATION = "report-live"

CLIENTS = Gauge("coordinator_api_live_clients", "Clients of /reports/events.", registry=REGISTRY)

type Subject = tuple[str, ...]
"""What an event is about: its name and the ids of one leaderboard, checkpoint or feed."""


@dataclass(eq=False)
class Mailbox:
    """What one client has not been sent yet: of each subject the newest event alone, so a slow one costs little."""

    waiting: dict[Subject, EventData] = field(default_factory=dict)
    filled: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, events: dict[Subject, EventData]) -> None:
        """Add events; one of the same subject is replaced."""
        self.waiting |= events
        if self.waiting:
            self.filled.set()

    def take(self) -> dict[Subject, EventData]:
        """All that is waiting."""
        self.filled.clear()
        taken, self.waiting = self.waiting, {}
        return taken


class LiveHub:
    """Listens while there are clients, and gives each the events since it came, after the present state."""

    def __init__(
        self, engine: Engine, judge: HealthJudge, clock: Callable[[], datetime], replica: Engine | None = None
    ) -> None:
        self._url = libpq_url(engine)
        self._replica_url = None if replica is None else libpq_url(replica)
        self._judge = judge
        self._clock = clock
        self._mailboxes: set[Mailbox] = set()
        self._known: dict[Subject, EventData] = {}
        self._listening: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether there are as many clients as there may be."""
        return len(self._mailboxes) >= MOST_CLIENTS

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-Sent Events for one client, until it leaves or the API ends."""
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        with self._mailbox() as mailbox:
            while not self._closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(mailbox.filled.wait(), QUIET_SECONDS)
                events = mailbox.take()
                for subject, event in events.items():
                    yield f"event: {subject[0]}\ndata: {event.model_dump_json()}\n\n".encode()
                if not events and not self._closed:
                    yield b": nothing new\n\n"

    def close(self) -> None:
        """End every stream: the API is to end."""
        self._closed = True
        for mailbox in self._mailboxes:
            mailbox.filled.set()
        self._rest()

    @contextlib.contextmanager
    def _mailbox(self) -> Iterator[Mailbox]:
        mailbox = Mailbox()
        mailbox.put(self._known)
        self._mailboxes.add(mailbox)
        CLIENTS.inc()
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        try:
            yield mailbox
        finally:
            CLIENTS.dec()
            self._mailboxes.discard(mailbox)
            if not self._mailboxes:
                self._rest()

    def _rest(self) -> None:
        """Stop listening; what was known is forgotten, because it will have changed."""
        if self._listening is not None:
            self._listening.cancel()
        self._listening, self._known = None, {}

    async def _listen(self) -> None:
        while True:
            try:
                async with (
                    await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, application_name=APPLICATION
                    ) as connection,
                    self._looking_with(connection) as looking,
                ):
                    for channel in (SNAPSHOTS, CHECKPOINTS):
                        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    while True:
                        self._tell(await self._look(looking))
                        async for _ in connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                            pass
            except (psycopg.Error, OSError) as error:
                log.warning("live events wait for the database", reason=type(error).__name__)
            except Exception:  # whatever it is, the clients that are here would else wait for ever
                log.exception("live events cannot be told; they are looked for again")
            await asyncio.sleep(RECONNECT_SECONDS)

    @contextlib.asynccontextmanager
    async def _looking_with(self, connection: psycopg.AsyncConnection) -> AsyncIterator[psycopg.AsyncConnection]:
        """The connection to look by: to the replica, which takes no LISTEN, so that what is told can be read there."""
        if self._replica_url is None:
            yield connection
            return
        async with await psycopg.AsyncConnection.connect(
            self._replica_url, autocommit=True, application_name=APPLICATION
        ) as looking:
            yield looking

    async def _look(self, connection: psycopg.AsyncConnection) -> dict[Subject, EventData]:
        now = self._clock()
        found: dict[Subject, EventData] = {
            _subject("leaderboard"): LeaderboardEvent(**row) for row in await newest_leaderboards(connection)
        }
        for row in await newest_checkpoints(connection):
            found[_subject("checkpoint", row["id"])] = CheckpointEvent(**row)
        for row in await feed_watermarks(connection):
            feed = FeedFact(**row)
            subject = _subject("feed", feed.source, feed.subject, feed.kind, feed.granularity)
            found[subject] = FeedEvent(**self._judge.feed(feed, now).model_dump())
        return found

    def _tell(self, found: dict[Subject, EventData]) -> None:
        changed = {subject: event for subject, event in found.items() if self._is_news(subject, event)}
        self._known = found
        for mailbox in self._mailboxes:
            mailbox.put(changed)

    def _is_news(self, subject: Subject, event: EventData) -> bool:
        before = self._known.get(subject)
        if isinstance(event, FeedEvent) and isinstance(before, FeedEvent):
            # Its age grows all the time and is no news.
            return (event.watermark_ts, event.late) != (before.watermark_ts, before.late)
        return event != before


def _subject(name: EventName, *ids: str) -> Subject:
    return (name, *ids)
