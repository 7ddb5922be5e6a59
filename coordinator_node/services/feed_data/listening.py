"""Listening to a source: to the subjects that it has, until it ends, fails or falls silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.feeds.base import DataFeed, FeedHandle, FeedSink, LivelyFeedHandle, listening_ended
from coordinator_node.feeds.contracts import FeedDataRecord, FeedSubscription
from coordinator_node.feeds.errors import FeedError, PermanentFeedError, RetryableFeedError
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

SILENT_SECONDS, SILENT_SPACINGS = 30.0, 5
# A source whose connection hangs may hang when it is stopped, too.
STOP_SECONDS = 3.0


class Listening:
    """One listening that was started. `failure` is what it ended with, if listening anew may help; else None."""

    def __init__(self, handle: FeedHandle, subjects: tuple[str, ...]) -> None:
        self.subjects = subjects
        self.failure: RetryableFeedError | None = None
        self._handle = handle
        self._closed = asyncio.Event()

    def silence(
        self, heard_at: datetime, now: datetime, spacing: timedelta, refusal: str | None
    ) -> RetryableFeedError | None:
        """What to say of a source that has been silent for longer than any source should; None where it has not.

        A record breaks the silence, and so does whatever a venue says where the handle can tell: a quiet market is no
        dead connection. `heard_at` is when the last record came, `spacing` the time between two, `refusal` why the last
        one since then was refused, None where none was.
        """
        silent = now - heard_at
        if isinstance(self._handle, LivelyFeedHandle):
            silent = min(silent, timedelta(seconds=self._handle.silent_seconds()))
        if silent <= max(timedelta(seconds=SILENT_SECONDS), SILENT_SPACINGS * spacing):
            return None
        seconds = silent.total_seconds()
        if refusal is not None:
            return RetryableFeedError(f"no record for {seconds:.0f} s that can be stored: {refusal}; listening anew")
        return RetryableFeedError(f"the source has been silent for {seconds:.0f} s: listening anew")

    async def watch(self, wake: Callable[[], None]) -> None:
        """Wait for its end, and note a failure that a new listening may mend.

        Raises:
            Exception: what it failed with otherwise, or FeedError where it just ended: no more data would come.
        """
        ended = asyncio.ensure_future(listening_ended(self._handle))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((ended, closed), return_when=asyncio.FIRST_COMPLETED)
            if self._closed.is_set():
                return
            ended.result()
            raise FeedError("listening ended although nobody stopped it; no more records would come")
        except RetryableFeedError as error:
            self.failure = error
            wake()
        finally:
            closed.cancel()
            ended.cancel()
            await asyncio.gather(closed, ended, return_exceptions=True)

    async def close(self) -> None:
        """Stop it, waiting STOP_SECONDS at most."""
        self._closed.set()
        with contextlib.suppress(RetryableFeedError):
            try:
                await asyncio.wait_for(self._handle.stop(), STOP_SECONDS)
            except TimeoutError:
                log.warning("the source did not stop listening in time; it is left behind", seconds=STOP_SECONDS)


async def listen(feed: DataFeed, subscription: FeedSubscription, sink: FeedSink) -> Listening:
    """Listen to those of the subjects that the source has; the others are named in the log.

    Raises:
        ConfigurationError: the source refuses all of them, or what is asked for altogether.
        RetryableFeedError: it cannot be had at the moment.
    """
    try:
        return await _listen(feed, subscription, sink)
    except PermanentFeedError as error:
        subjects = await _accepted(feed, subscription, error)
        if not subjects or subjects == subscription.subjects:
            raise ConfigurationError(str(error)) from error
    return await listen(feed, _narrowed(subscription, subjects), sink)


async def _listen(feed: DataFeed, subscription: FeedSubscription, sink: FeedSink) -> Listening:
    return Listening(await feed.listen(subscription, sink), subscription.subjects)


async def _accepted(feed: DataFeed, subscription: FeedSubscription, refusal: PermanentFeedError) -> tuple[str, ...]:
    """The subjects that the source would listen to; it is tried out where its refusal does not say."""
    if len(subscription.subjects) == 1:
        return ()
    named = refusal.subject in subscription.subjects
    refused = {refusal.subject: str(refusal)} if named else await _refusals(feed, subscription)
    if len(refused) < len(subscription.subjects):
        for subject, reason in refused.items():
            log.error("subject refused by the source; the others go on", subject=subject, reason=reason)
    return tuple(subject for subject in subscription.subjects if subject not in refused)


async def _refusals(feed: DataFeed, subscription: FeedSubscription) -> dict[str | None, str]:
    refused: dict[str | None, str] = {}
    for subject in subscription.subjects:
        try:
            trial = await _listen(feed, _narrowed(subscription, (subject,)), _Nobody())
        except PermanentFeedError as error:
            refused[subject] = str(error)
        else:
            await trial.close()
    return refused


def _narrowed(subscription: FeedSubscription, subjects: tuple[str, ...]) -> FeedSubscription:
    return FeedSubscription(subjects, subscription.kind, subscription.granularity, subscription.fields)


class _Nobody:
    """A sink for trials."""

    async def on_record(self, record: FeedDataRecord) -> None:
        """Forget the record: what counts is fetched once the listening has begun."""
