"""The transport to Binance: REST requests and WebSocket streams over python-binance.

What comes back is JSON as it came; the modules of the kinds read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from coordinator_node.feeds.binance.errors import feed_error
from coordinator_node.feeds.binance.library import binance_library
from coordinator_node.feeds.binance.weight import FUTURES_WEIGHT, SPOT_WEIGHT, WeightGuard
from coordinator_node.feeds.errors import RetryableFeedError
from coordinator_node.feeds.venue.fields import UnreadableError, entry, milliseconds
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

QUEUED_MESSAGES = 100_000
"""How many messages may wait to be read; python-binance drops the connection beyond it."""

CLOSE_CHECK_SECONDS = 0.1
"""How often python-binance's reader looks whether it is to end; its ten seconds would hold up every stop."""

type Request = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Addresses:
    """Where the venue is; None means python-binance's own address of it."""

    api: str | None = None
    stream: str | None = None
    futures: str | None = None
    futures_stream: str | None = None


@dataclass(frozen=True)
class Allowances:
    """The request weight used up, of the spot and the futures API, by all clients of one address."""

    spot: WeightGuard = field(default_factory=lambda: WeightGuard(SPOT_WEIGHT))
    futures: WeightGuard = field(default_factory=lambda: WeightGuard(FUTURES_WEIGHT))


class BinanceClient:
    """One client of the venue, of its spot or of its USD-M futures market; made by `open_client`."""

    def __init__(self, client: Any, addresses: Addresses, guard: WeightGuard, *, futures: bool) -> None:
        self._client = client
        self._addresses = addresses
        self._guard = guard
        self._futures = futures

    async def ask(self, what: str, request: Request, subject: str | None = None) -> Any:
        """The JSON answer to a request, which is given python-binance's AsyncClient.

        Waits first where the minute's request weight is nearly used up. `what` names the request in messages.

        Raises:
            RetryableFeedError: no answer, an unreadable one, or one that asks to come back later.
            PermanentFeedError: the venue refuses; it names `subject` where its symbol is unknown.
        """
        await self._within_allowance()
        self._client.response = None
        try:
            answer = await request(self._client)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RetryableFeedError(f"Binance cannot be reached for {what}: {error!r}") from error
        except Exception as error:  # python-binance raises types of its own, and AttributeError over some error bodies
            raise self._refusal(what, error, subject) from error
        self._guard.note(self._client.response.headers)
        return answer

    async def rows(self, what: str, request: Request, subject: str | None = None) -> list[Any]:
        """`ask`, for an answer that is a list; any other is RetryableFeedError."""
        answer = await self.ask(what, request, subject)
        if not isinstance(answer, list):
            raise RetryableFeedError(f"Binance answered {what} with {str(answer)[:200]!r}, expected a list")
        return answer

    async def now_ms(self) -> int:
        """The venue's clock, in epoch milliseconds."""
        answer = await self.ask(
            "its time", lambda client: client.futures_time() if self._futures else client.get_server_time()
        )
        try:
            return milliseconds(entry(answer, "serverTime"), "serverTime")
        except UnreadableError as error:
            raise RetryableFeedError(f"Binance's answer about its time cannot be read: {error}") from error

    async def check(self, symbol: str, subject: str) -> None:
        """Returns if the market has the symbol; else raises PermanentFeedError, which names the subject."""
        await self.ask(
            f"the price of {symbol}",
            lambda api: (
                api.futures_mark_price(symbol=symbol) if self._futures else api.get_symbol_ticker(symbol=symbol)
            ),
            subject,
        )

    async def connect(self, streams: Sequence[str]) -> RawStream:
        """Opens one connection for several streams, by their names at the venue.

        Raises:
            RetryableFeedError: it cannot be had.
        """
        library = binance_library()
        manager = library.BinanceSocketManager(self._client, max_queue_size=QUEUED_MESSAGES)
        if self._addresses.stream is not None:
            manager.STREAM_URL = self._addresses.stream.rstrip("/") + "/"
        if self._addresses.futures_stream is not None:
            manager.FSTREAM_URL = self._addresses.futures_stream.rstrip("/") + "/"
        names = list(streams)
        socket = manager.futures_multiplex_socket(names) if self._futures else manager.multiplex_socket(names)
        # A reconnect would hide that something was missed, and python-binance's own loses a stop that comes meanwhile.
        socket.MAX_RECONNECTS = 0
        socket.TIMEOUT = CLOSE_CHECK_SECONDS
        try:
            await socket.connect()
        except Exception as error:  # whatever the WebSocket library makes of a refused or broken handshake
            raise RetryableFeedError(f"Binance's stream cannot be had: {error!r}") from error
        return RawStream(socket)

    async def _within_allowance(self) -> None:
        seconds = self._guard.wait_seconds()
        if seconds > 0:
            log.warning("Binance's request weight of this minute is nearly used up; waiting", seconds=round(seconds))
            await asyncio.sleep(seconds)

    def _refusal(self, what: str, error: Exception, subject: str | None) -> Exception:
        response = self._client.response
        if response is None:
            return RetryableFeedError(f"Binance cannot be asked for {what}: {error!r}")
        self._guard.note(response.headers)
        if 200 <= response.status < 300:
            return RetryableFeedError(f"Binance's answer to {what} cannot be read: {error!r}")
        code, said = _told(error)
        return feed_error(what, response.status, response.headers, code, said or response.reason, subject)


class RawStream:
    """An open connection of python-binance."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def next(self, timeout: float) -> tuple[str, Mapping[str, Any]] | None:
        """The next message as the stream's name and its payload; None where none came in time, or it is neither.

        Raises:
            RetryableFeedError: the connection was lost.
        """
        try:
            message = await asyncio.wait_for(self._socket.recv(), timeout)
        except TimeoutError:
            return None
        except binance_library().exceptions.ReadLoopClosed as error:
            raise RetryableFeedError("Binance's stream was closed") from error
        if not isinstance(message, Mapping):
            return None
        if message.get("e") == "error":
            raise RetryableFeedError(f"Binance's stream was lost: {message.get('type')} {message.get('m')}")
        name, payload = message.get("stream"), message.get("data")
        return (name, payload) if isinstance(name, str) and isinstance(payload, Mapping) else None

    async def close(self) -> None:
        """Ends the connection."""
        await self._socket.close()


@asynccontextmanager
async def open_client(addresses: Addresses, allowances: Allowances, *, futures: bool) -> AsyncIterator[BinanceClient]:
    """A client for as long as the context is open; it does not ask the venue anything yet."""
    client = binance_library().AsyncClient()
    if addresses.api is not None:
        client.API_URL = addresses.api.rstrip("/")
    if addresses.futures is not None:
        client.FUTURES_URL = addresses.futures.rstrip("/")
    guard = allowances.futures if futures else allowances.spot
    try:
        yield BinanceClient(client, addresses, guard, futures=futures)
    finally:
        await client.close_connection()


def _told(error: Exception) -> tuple[int | None, str]:
    """Binance's code and message; None and nothing where its answer held none, and the library says so instead."""
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    if not isinstance(code, int) or not isinstance(message, str) or message.startswith("Invalid JSON"):
        return None, ""
    return code, message[:200]
