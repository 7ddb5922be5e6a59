"""Access to Binance for one kind and granularity."""

from __future__ import annotations

import time
from collections.abc import Sequence

from coordinator_node.feeds.binance.client import BinanceClient, RawStream
from coordinator_node.feeds.binance.kind import BinanceKind, Listed
from coordinator_node.feeds.binance.symbols import Symbols
from coordinator_node.feeds.contracts import FeedDataRecord
from coordinator_node.feeds.venue.fields import UnreadableError
from coordinator_node.feeds.venue.sampling import Bar
from coordinator_node.feeds.venue.session import Heard, History, VenueSession, VenueStream
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)


class VenueClock:
    """The venue's clock between two looks at it, counted on by this machine's monotonic clock."""

    def __init__(self, now_ms: int) -> None:
        self._ahead_ms = now_ms - time.monotonic() * 1000

    def now_ms(self) -> int:
        """Epoch milliseconds at the venue, late by as long as the answer took to come."""
        return int(self._ahead_ms + time.monotonic() * 1000)


class BinanceSession(VenueSession):
    """One client and one kind; the kind knows what to ask and how to read it."""

    def __init__(self, client: BinanceClient, kind: BinanceKind, symbols: Symbols) -> None:
        self._client = client
        self._kind = kind
        self._symbols = symbols
        self._clock: VenueClock | None = None
        self.size_ms = kind.size_ms
        self.settle_ms = kind.settle_ms
        self.quiet_seconds = kind.quiet_seconds
        self.keeps_history = kind.keeps_history

    async def begin(self, subjects: Sequence[str]) -> int:
        """Asks for each symbol's price: a stream of a symbol that is none is silent and says nothing."""
        for subject in subjects:
            await self._client.check(self._listed(subject).symbol, subject)
        now_ms = await self._client.now_ms()
        self._clock = VenueClock(now_ms)
        return now_ms

    async def connect(self, subjects: Sequence[str]) -> VenueStream:
        """One connection for all subjects."""
        by_stream = {self._kind.stream_name(self._listed(each).symbol): each for each in subjects}
        return BinanceStream(await self._client.connect(list(by_stream)), by_stream, self._kind, await self._venue())

    async def history(self, subject: str, start_ms: int, end_ms: int | None, limit: int | None) -> History:
        """As the kind reads it."""
        return await self._kind.history(self._client, self._listed(subject), start_ms, end_ms, limit)

    async def look(self, subject: str) -> Sequence[Heard]:
        """The present."""
        return await self._kind.look(self._client, self._listed(subject), (await self._venue()).now_ms())

    def record(self, subject: str, bar: Bar) -> FeedDataRecord:
        """As the kind makes it."""
        return self._kind.record(subject, bar)

    def _listed(self, subject: str) -> Listed:
        return Listed(subject, self._symbols.symbol_of(subject))

    async def _venue(self) -> VenueClock:
        if self._clock is None:
            self._clock = VenueClock(await self._client.now_ms())
        return self._clock


class BinanceStream(VenueStream):
    """Reads the messages of a connection."""

    def __init__(self, raw: RawStream, by_stream: dict[str, str], kind: BinanceKind, clock: VenueClock) -> None:
        self._raw = raw
        self._by_stream = by_stream
        self._kind = kind
        self._clock = clock

    async def next(self, timeout: float) -> Sequence[Heard]:
        """The next message; one that cannot be read is named in the log, and found missing when the next one comes."""
        message = await self._raw.next(timeout)
        if message is None:
            return ()
        name, payload = message
        subject = self._by_stream.get(name)
        if subject is None:
            return ()
        try:
            heard = self._kind.heard(subject, payload, self._clock.now_ms())
        except UnreadableError as error:
            log.warning("message of Binance refused", stream=name, reason=str(error), message=str(payload)[:200])
            return ()
        return () if heard is None else (heard,)

    async def close(self) -> None:
        """Ends the connection."""
        await self._raw.close()
