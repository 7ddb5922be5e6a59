"""The three verbs of a source, and what is handed to it and comes back from it.

These are protocols: a class that has the methods is a source, whether or not it names DataFeed as its base. What a
source written for 0.1.84 does not have (its spacing, a way to see its listening fail) is asked for through the
functions below, which know what to assume.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.feeds.contracts import FeedDataRecord, FeedFetchRequest, FeedSubscription, SubjectDescriptor


class FeedSink(Protocol):
    """Takes the records that a source hears; what it raises ends the listening."""

    @abstractmethod
    async def on_record(self, record: FeedDataRecord) -> None:
        """Takes one record; the source waits for it, so a slow sink delays later records but loses none."""


class FeedHandle(Protocol):
    """A listening that was started."""

    @abstractmethod
    async def stop(self) -> None:
        """Ends the listening; the record being handed over is finished first."""


@runtime_checkable
class ObservableFeedHandle(FeedHandle, Protocol):
    """A handle that also says when its listening ends; every source of the engine gives one."""

    @abstractmethod
    async def wait(self) -> None:
        """Returns once the listening was stopped, and raises what it failed with if it ended for another reason."""


@runtime_checkable
class LivelyFeedHandle(FeedHandle, Protocol):
    """A handle that tells a quiet market from a dead connection; the sources of venues give one."""

    @abstractmethod
    def silent_seconds(self) -> float:
        """Seconds since the venue last showed that it is there, be it only by saying that nothing is new."""


@runtime_checkable
class DataFeed(Protocol):
    """A source of records."""

    @abstractmethod
    async def list_subjects(self) -> Sequence[SubjectDescriptor]:
        """The subjects there are; a source may serve others as well, and says so in their place."""

    @abstractmethod
    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> FeedHandle:
        """Hands every record that becomes known from now on to `sink`, until the handle is stopped.

        To miss nothing, listen first and then fetch what came before.
        """

    @abstractmethod
    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        """The past records asked for, ascending by time; of more than `limit`, the oldest."""


@runtime_checkable
class SpacedFeed(Protocol):
    """A source whose records do not come at the pace that their granularity says."""

    def spacing_seconds(self, granularity: str) -> float:
        """Seconds on the wall clock between two records of a granularity."""


@runtime_checkable
class CheckingFeed(Protocol):
    """A source that can say without asking anybody whether it has what is wanted; every source of the engine can."""

    def check(self, subjects: Sequence[str], kind: str, granularity: str) -> object:
        """Raises PermanentFeedError, saying what to set instead, for what it does not have."""


def spacing_of(feed: DataFeed, granularity: str) -> float:
    """Seconds on the wall clock between two records of `feed`: the granularity's own unless the source says otherwise.

    Raises:
        ValueError: a granularity that no feed here has.
    """
    if isinstance(feed, SpacedFeed):
        return feed.spacing_seconds(granularity)
    return float(granularity_seconds(granularity))


async def listening_ended(handle: FeedHandle) -> None:
    """Returns or raises as `ObservableFeedHandle.wait`; for a handle that cannot tell, it waits until cancelled."""
    if isinstance(handle, ObservableFeedHandle):
        await handle.wait()
    else:
        await asyncio.Event().wait()
