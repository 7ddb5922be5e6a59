"""Pyth's stream of prices: server-sent events, read by a thread of their own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import requests

from coordinator_node.feeds.errors import FeedError, RetryableFeedError
from coordinator_node.feeds.pyth.client import PythClient
from coordinator_node.feeds.pyth.prices import updates_of
from coordinator_node.feeds.venue.fields import UnreadableError
from coordinator_node.feeds.venue.session import Heard, Observed, VenueStream
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

QUEUED_EVENTS = 100_000
"""How many events may wait to be read; whoever falls so far behind does better to connect anew."""

CHUNK_BYTES = 1024
"""The most that is read at once; an event that is shorter does not wait for the next."""

CLOSE_SECONDS = 1.0
"""How long closing waits for the thread, which ends as soon as its socket is shut down."""


def events_of(lines: Iterable[bytes]) -> Iterator[str]:
    """The data of each server-sent event (WHATWG HTML, 9.2.6); comments and other fields are left out."""
    data: list[str] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" ").decode(errors="replace"))
        elif not line and data:
            yield "\n".join(data)
            data = []


class PythStream(VenueStream):
    """An open stream; made by `open_stream`."""

    def __init__(self, client: PythClient, subjects: Mapping[str, str]) -> None:
        """`subjects` are those to listen to, by feed id. Must be made inside a running event loop."""
        self._client = client
        self._subjects = subjects
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._events: asyncio.Queue[str | FeedError] = asyncio.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._response: requests.Response | None = None
        # A daemon: one that hangs while it connects must not keep the process from ending.
        self._thread = threading.Thread(target=self._read, name="pyth stream", daemon=True)

    async def open(self) -> None:
        """Returns once the venue has begun to answer; raises as PythClient.latest."""
        self._thread.start()
        try:
            await self._opened
        except asyncio.CancelledError:
            self._shut_down()
            raise

    async def next(self, timeout: float) -> Sequence[Heard]:
        """The updates of the next event; one that cannot be read is named in the log."""
        try:
            event = await asyncio.wait_for(self._events.get(), timeout)
        except TimeoutError:
            return ()
        if isinstance(event, FeedError):
            raise event
        if self._events.qsize() > QUEUED_EVENTS:
            raise RetryableFeedError(f"more than {QUEUED_EVENTS} events of Pyth's stream wait to be read")
        try:
            updates = updates_of(json.loads(event), "a stream event")
        except (UnreadableError, ValueError) as error:
            log.warning("event of Pyth refused", reason=str(error), text=event[:200])
            return ()
        return [
            Observed(self._subjects[each.feed_id], each.observation())
            for each in updates
            if each.is_first and each.feed_id in self._subjects
        ]

    async def close(self) -> None:
        """Ends the connection, whatever the thread waits for."""
        self._shut_down()
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    def _shut_down(self) -> None:
        with self._lock:
            self._closed = True
            if self._response is not None:
                try:
                    self._response.raw.shutdown()
                except (ValueError, RuntimeError, OSError):
                    return  # the venue was first, and the thread has seen it

    def _read(self) -> None:
        """The thread: connects, then hands over events until the connection ends."""
        try:
            response = self._client.open_stream(self._subjects)
        except FeedError as error:
            self._tell(self._fail_opening, error)
            return
        with response:
            with self._lock:
                if self._closed:
                    return
                self._response = response
            self._tell(self._succeed_opening)
            end = "it ended"
            try:
                for event in events_of(response.iter_lines(chunk_size=CHUNK_BYTES)):
                    self._tell(self._events.put_nowait, event)
            except (requests.RequestException, OSError, ValueError) as error:
                end = repr(error)
            self._tell(self._events.put_nowait, RetryableFeedError(f"Pyth's stream was lost: {end}"))

    def _tell(self, callback: Any, *arguments: object) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._loop.call_soon_threadsafe(callback, *arguments)
            except RuntimeError:
                self._closed = True  # the event loop is gone, and with it whoever listened

    def _succeed_opening(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _fail_opening(self, error: FeedError) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)


async def open_stream(client: PythClient, subjects: Mapping[str, str]) -> PythStream:
    """Connects; `subjects` are those to listen to, by feed id. Raises as PythClient.latest."""
    await client.wait_for_turn()
    stream = PythStream(client, subjects)
    await stream.open()
    return stream
