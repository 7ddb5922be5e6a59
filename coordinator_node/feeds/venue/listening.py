"""Listening to a venue: every record once, in order, and only when nothing before it is missing.

A stream is quick but forgets: what is sent while nobody is connected is gone, a message may be unreadable, and a quiet
market does not tell when an interval is over. The history forgets nothing but has to be asked. So the stream's records
are handed over as long as nothing is missing between them, and whatever the stream did not show whole is asked of the
history before anything later is handed over. Without a stream the history is asked every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from coordinator_node.entities.times import event_time
from coordinator_node.feeds.base import FeedSink, LivelyFeedHandle
from coordinator_node.feeds.contracts import FeedDataRecord
from coordinator_node.feeds.errors import PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.listening import ListeningTask
from coordinator_node.feeds.micros import from_epoch_micros
from coordinator_node.feeds.venue.sampling import IntervalSampler, Observation, Span, floor_ms
from coordinator_node.feeds.venue.session import Announced, Closed, Heard, Observed, VenueSession, VenueStream
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

HISTORY_RETRY_SECONDS = 0.25
"""Pause before the history is asked again for an interval that it does not hold yet."""

SLOWEST_RECHECK_SECONDS = 60.0
"""How long a subject may be quiet on a stream before the history is asked whether that is so."""

SOCKET_RETRY_SECONDS = 60.0
"""How often a stream is tried again while the history stands in for it."""


class _Track:
    """One subject's place in time."""

    def __init__(self, subject: str, size_ms: int, start_ms: int, shown_ms: int, due: float) -> None:
        self.subject = subject
        self.next_ms = start_ms  # everything before it was handed over, or is known not to be
        self.sampler = IntervalSampler(size_ms, start_ms)
        self.due = due  # the monotonic time at which the history is asked
        self.shown_ms = shown_ms  # the newest event time that the stream showed
        self.suspected = False  # whether the history held something that the stream should have shown


class VenueHandle(ListeningTask, LivelyFeedHandle):
    """A listening to a venue."""

    def __init__(self, listening: VenueListening) -> None:
        super().__init__(listening.name, listening.run)
        self._listening = listening

    def silent_seconds(self) -> float:
        """Seconds since the last message of the stream or answer of the history."""
        return self._listening.silent_seconds()


class VenueListening:
    """One listening; `run` is its task. The stack is closed with it, and with it session and stream."""

    def __init__(
        self,
        name: str,
        sink: FeedSink,
        stack: AsyncExitStack,
        session: VenueSession,
        subjects: Sequence[str],
        poll_seconds: float,
    ) -> None:
        self.name = name
        self._sink = sink
        self._stack = stack
        self._session = session
        self._subjects = tuple(subjects)
        self._poll_seconds = poll_seconds
        self._stream: VenueStream | None = None
        self._stream_retry_at = 0.0
        self._tracks: dict[str, _Track] = {}
        self._handing_over = asyncio.Lock()
        self._sign_at = time.monotonic()

    def silent_seconds(self) -> float:
        """Seconds since the venue said anything."""
        return time.monotonic() - self._sign_at

    async def begin(self) -> None:
        """Connects; whatever becomes known after this returns will be handed over by `run`."""
        now_ms = await self._session.begin(self._subjects)
        # What was over but could not be had from the history yet is heard by nobody else.
        start_ms = floor_ms(now_ms - self._session.settle_ms, self._session.size_ms)
        due = time.monotonic() + self._session.quiet_seconds
        self._tracks = {each: _Track(each, self._session.size_ms, start_ms, now_ms, due) for each in self._subjects}
        await self._connect()

    async def run(self, stopping: asyncio.Event) -> None:
        """Hands over what is heard until `stopping` is set; raises what ends the listening before."""
        async with self._stack:
            work = asyncio.create_task(self._work_for_all())
            stop = asyncio.create_task(stopping.wait())
            try:
                await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
                async with self._handing_over:
                    work.cancel()
            finally:
                work.cancel()
                stop.cancel()
                await asyncio.wait({work, stop})
        if not work.cancelled():
            work.result()

    async def _work_for_all(self) -> None:
        try:
            await self._work()
        except PermanentFeedError as error:
            if error.subject is None or len(self._subjects) == 1:
                raise
            # Whoever listens anew is told which subject it is, and can go on with the others.
            raise RetryableFeedError(f"{self.name}: {error}") from error

    async def _work(self) -> None:
        while True:
            if self._stream is None and time.monotonic() >= self._stream_retry_at:
                await self._connect_again()
            for heard in await self._next():
                await self._take(heard)
            for track in self._tracks.values():
                if time.monotonic() >= track.due:
                    await self._ask(track)

    async def _connect_again(self) -> None:
        """What happened before this moment is not expected of the stream."""
        now_ms = await self._session.begin(self._subjects)
        for track in self._tracks.values():
            track.shown_ms = max(track.shown_ms, now_ms)
        await self._connect()

    async def _connect(self) -> None:
        try:
            self._stream = await self._session.connect(self._subjects)
        except RetryableFeedError as error:
            self._stream_retry_at = time.monotonic() + SOCKET_RETRY_SECONDS
            log.warning("no stream; polling instead", feed=self.name, reason=str(error), every=self._poll_seconds)
        else:
            self._stack.push_async_callback(self._stream.close)
            log.info("stream open", feed=self.name)

    async def _next(self) -> Sequence[Heard]:
        until_due = min(track.due for track in self._tracks.values()) - time.monotonic()
        timeout = min(max(until_due, 0.0), self._poll_seconds)
        if self._stream is None:
            await asyncio.sleep(timeout)
            return ()
        heard = await self._stream.next(timeout)
        if heard:
            self._sign_at = time.monotonic()
        return heard

    async def _take(self, heard: Heard) -> None:
        track = self._tracks[heard.subject]
        track.suspected = False
        if isinstance(heard, Observed):
            await self._take_observation(track, heard.observation)
        elif isinstance(heard, Closed):
            await self._take_record(track, heard)
        else:
            self._expect(track, heard)

    async def _take_observation(self, track: _Track, seen: Observation) -> None:
        track.shown_ms = max(track.shown_ms, seen.time_ms)
        span = track.sampler.add(seen)
        if span is not None:
            await self._take_span(track, span)
        interval_end = floor_ms(seen.time_ms, self._session.size_ms) + self._session.size_ms
        self._quiet_until(track, (interval_end - seen.time_ms) / 1000)

    async def _take_span(self, track: _Track, span: Span) -> None:
        if not span.whole and self._session.keeps_history:
            await self._fill(track, span.end_ms)
            return
        if span.bar is not None:
            await self._give(self._session.record(track.subject, span.bar))
        track.next_ms = span.end_ms

    async def _take_record(self, track: _Track, closed: Closed) -> None:
        track.shown_ms = max(track.shown_ms, closed.start_ms)
        if closed.start_ms < track.next_ms:
            return  # a duplicate, or one that came late and was asked of the history
        await self._fill(track, closed.start_ms)
        await self._give(closed.record)
        track.next_ms = closed.start_ms + self._session.size_ms
        self._quiet_until(track, self._session.size_ms / 1000)

    def _expect(self, track: _Track, announced: Announced) -> None:
        settled = announced.in_seconds + self._session.settle_ms / 1000
        track.due = min(track.due, time.monotonic() + settled)

    def _quiet_until(self, track: _Track, over_in_seconds: float) -> None:
        """The stream has some seconds after the end of the running interval to show that it is over."""
        track.due = time.monotonic() + over_in_seconds + self._session.quiet_seconds

    async def _fill(self, track: _Track, end_ms: int) -> None:
        """Hands over what the history holds up to `end_ms`; waits for it where it is behind the stream."""
        give_up_at = time.monotonic() + self._session.settle_ms / 1000 + self._poll_seconds
        while track.next_ms < end_ms:
            found = await self._session.history(track.subject, track.next_ms, end_ms, None)
            await self._give_all(track, found.records, found.complete_until_ms)
            if track.next_ms >= end_ms:
                return
            if time.monotonic() >= give_up_at:
                raise RetryableFeedError(
                    f"{self.name}: the history of {track.subject} stays behind its stream; connecting anew"
                )
            await asyncio.sleep(HISTORY_RETRY_SECONDS)

    async def _ask(self, track: _Track) -> None:
        """Asks the history of a subject that is quiet on the stream, or has no stream."""
        if not self._session.keeps_history:
            await self._cut(track)
            return
        found = await self._session.history(track.subject, track.next_ms, None, None)
        await self._give_all(track, found.records, found.complete_until_ms)
        track.due = time.monotonic() + self._recheck_seconds()
        if self._stream is not None and found.records:
            self._suspect(track, found.records[-1])

    def _suspect(self, track: _Track, newest: FeedDataRecord) -> None:
        """Ends the listening if the history twice held what the stream did not show, with nothing shown between."""
        if event_time(newest.ts_event) <= from_epoch_micros(track.shown_ms * 1000):
            return
        if track.suspected:
            raise RetryableFeedError(
                f"{self.name}: the stream is silent although the venue has new records of {track.subject}; "
                "connecting anew"
            )
        track.suspected = True

    async def _cut(self, track: _Track) -> None:
        """Hands over the running interval of a kind that has no history, as it is."""
        track.due = time.monotonic() + self._recheck_seconds()
        if self._stream is None:
            for heard in await self._session.look(track.subject):
                await self._take(heard)
            track.due = time.monotonic() + self._poll_seconds
            return
        bar = track.sampler.cut()
        if bar is not None:
            await self._give(self._session.record(track.subject, bar))

    def _recheck_seconds(self) -> float:
        if self._stream is None:
            return self._poll_seconds
        return max(self._session.quiet_seconds, min(self._session.size_ms / 1000, SLOWEST_RECHECK_SECONDS))

    async def _give_all(self, track: _Track, records: Sequence[FeedDataRecord], complete_until_ms: int) -> None:
        self._sign_at = time.monotonic()
        for record in records:
            await self._give(record)
        track.next_ms = max(track.next_ms, complete_until_ms)
        track.sampler.skip_to(track.next_ms)

    async def _give(self, record: FeedDataRecord) -> None:
        async with self._handing_over:
            await self._sink.on_record(record)
