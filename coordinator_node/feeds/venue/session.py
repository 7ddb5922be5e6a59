"""What a venue's adapter provides, so that the shared base can fetch and listen.

An adapter turns the venue's answers and messages into typed shapes, and these, by pure functions, into what is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from coordinator_node.feeds.contracts import FeedDataRecord
from coordinator_node.feeds.venue.sampling import Bar, Observation


@dataclass(frozen=True)
class History:
    """Records of one subject, ascending, and the start of the first interval that they do not answer for."""

    records: list[FeedDataRecord]
    complete_until_ms: int


@dataclass(frozen=True, slots=True)
class Observed:
    """A stream showed one observation."""

    subject: str
    observation: Observation


@dataclass(frozen=True, slots=True)
class Closed:
    """A stream gave the whole record of the interval that starts at `start_ms`."""

    subject: str
    start_ms: int
    record: FeedDataRecord


@dataclass(frozen=True, slots=True)
class Announced:
    """A stream said in how many seconds the history will hold something new."""

    subject: str
    in_seconds: float


type Heard = Observed | Closed | Announced


class VenueStream(Protocol):
    """An open connection on which the venue sends what happens."""

    @abstractmethod
    async def next(self, timeout: float) -> Sequence[Heard]:
        """What came next; empty where nothing of use came within `timeout` seconds.

        Raises:
            RetryableFeedError: the connection was lost, and with it perhaps something that was on its way.
        """

    @abstractmethod
    async def close(self) -> None:
        """Ends the connection, at once whatever state it is in."""


class VenueSession(Protocol):
    """Access to a venue for one kind and granularity. Every method may raise RetryableFeedError or PermanentFeedError.

    - `size_ms`: the length of an interval.
    - `settle_ms`: how long after its end an interval may still change in the history. It is over for certain once
      the venue's clock is so far past it, or as soon as the history shows something later.
    - `quiet_seconds`: how long after the end of an interval the stream may be silent before the history is asked.
    - `keeps_history`: whether `history` can be asked; else `look` shows the present.
    """

    size_ms: int
    settle_ms: int
    quiet_seconds: float
    keeps_history: bool

    @abstractmethod
    async def begin(self, subjects: Sequence[str]) -> int:
        """Makes sure that the venue has each subject; gives the venue's clock in epoch milliseconds."""

    @abstractmethod
    async def connect(self, subjects: Sequence[str]) -> VenueStream:
        """Opens a stream of the subjects; whatever happens after the return comes on it, or it fails."""

    @abstractmethod
    async def history(self, subject: str, start_ms: int, end_ms: int | None, limit: int | None) -> History:
        """The records of intervals that are over, with start_ms <= ts_event < end_ms; at most `limit`, the oldest.

        `end_ms` None means up to the venue's present. A row of the venue that cannot be read costs only itself.
        """

    @abstractmethod
    async def look(self, subject: str) -> Sequence[Heard]:
        """The present, of a kind that keeps no history."""

    @abstractmethod
    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """The record of an interval that was sampled."""


type SessionContext = AbstractAsyncContextManager[VenueSession]
