"""What one kind of record needs from Binance; each kind is a module of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.feeds.binance.client import BinanceClient
from coordinator_node.feeds.contracts import FeedDataRecord
from coordinator_node.feeds.errors import RetryableFeedError
from coordinator_node.feeds.venue.fields import UnreadableError
from coordinator_node.feeds.venue.sampling import Bar
from coordinator_node.feeds.venue.session import Heard, History
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

SOURCE = "binance"
PAGE_ROWS = 1000
"""The most rows that Binance gives in one answer."""


@dataclass(frozen=True)
class Listed:
    """A subject and its symbol."""

    subject: str
    symbol: str


class BinanceKind(ABC):
    """One kind at one granularity. See VenueSession for `settle_ms`, `quiet_seconds` and `keeps_history`."""

    futures = False
    keeps_history = True
    settle_ms = 2000

    def __init__(self, granularity: str, poll_seconds: float) -> None:
        self.granularity = granularity
        self.size_ms = granularity_seconds(granularity) * 1000
        self.quiet_seconds = poll_seconds

    @abstractmethod
    def stream_name(self, symbol: str) -> str:
        """The stream that brings the kind, by its name at the venue."""

    @abstractmethod
    def heard(self, subject: str, payload: Mapping[str, Any], venue_ms: int) -> Heard | None:
        """What a stream's message says; None where it is of no use. `venue_ms` is the venue's clock, about.

        Raises:
            UnreadableError: the message is not what the venue documents.
        """

    @abstractmethod
    async def history(
        self, client: BinanceClient, listed: Listed, start_ms: int, end_ms: int | None, limit: int | None
    ) -> History:
        """As VenueSession says."""

    @abstractmethod
    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """As VenueSession says."""

    async def look(self, client: BinanceClient, listed: Listed, venue_ms: int) -> list[Heard]:
        """The present, of a kind that keeps no history."""
        return []


def readable[Row](rows: Iterable[object], read: Callable[[object], Row], what: str) -> list[Row]:
    """The rows that can be read; one that cannot is named in the log and costs no other.

    Raises:
        RetryableFeedError: there are several rows, and none can be read: the venue speaks another language.
    """
    found: list[Row] = []
    faults: list[str] = []
    for row in rows:
        try:
            found.append(read(row))
        except UnreadableError as error:
            faults.append(str(error))
            log.warning("row of Binance refused", what=what, reason=str(error), row=str(row)[:200])
    if len(faults) > 1 and not found:
        raise RetryableFeedError(f"Binance's answer to {what} cannot be read: {faults[0]}")
    return found
