"""A port in front of a server, at which connections can be cut in the ways in which networks cut them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto

READ_BYTES = 65536

type Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Cut(Enum):
    """How a connection is cut."""

    REFUSED = auto()
    """What is connected is reset, and who connects anew is, too: the server has gone."""
    SILENT = auto()
    """Nothing passes in either direction and nobody is told; new connections are taken and left alone."""
    UNANSWERED = auto()
    """What the client sends arrives, commits too; what the server answers does not."""
    HALF_CLOSED = auto()
    """Clients see the end of what is connected, the server does not; new connections pass."""


class CutProxy:
    """Listens on a port of its own and passes everything on, until it is told to cut."""

    def __init__(self, connect: Connect) -> None:
        self.port = 0
        self._connect = connect
        self._cut: Cut | None = None
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[CutProxy]:
        server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._reset(list(self._connections))
            await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self, how: Cut) -> None:
        """Cut what is connected, and what connects until `heal`."""
        self._cut = how
        for connection in list(self._connections):
            connection.cut(how)
        if how is Cut.REFUSED:
            self._reset(list(self._connections))

    def heal(self) -> None:
        """Pass on what connects from now on; what lost anything meanwhile is reset, on both sides."""
        self._cut = None
        self._reset([connection for connection in self._connections if connection.is_cut])

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def _reset(self, connections: list[_Connection]) -> None:
        for connection in connections:
            connection.reset()
            self._connections.discard(connection)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        if self._cut is Cut.REFUSED:
            connection.reset()
            return
        self._connections.add(connection)
        if self._cut in (Cut.SILENT, Cut.UNANSWERED):
            connection.cut(self._cut)
        try:
            await connection.run(self._connect)
        except OSError:
            connection.reset()  # the server is away
        finally:
            self._connections.discard(connection)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._cut: Cut | None = None
        self._client = (reader, writer)
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._over = asyncio.Event()

    @property
    def is_cut(self) -> bool:
        return self._cut is not None

    def cut(self, how: Cut) -> None:
        self._cut = how
        if how is Cut.HALF_CLOSED:
            with contextlib.suppress(OSError):
                self._client[1].write_eof()

    def reset(self) -> None:
        self._over.set()
        for _, writer in filter(None, (self._client, self._server)):
            _send_reset(writer)

    async def run(self, connect: Connect) -> None:
        """Pass on until one side ends, or it is reset."""
        if self._cut is Cut.SILENT:
            await self._over.wait()
            return
        self._server = await connect()
        pumps = [
            asyncio.ensure_future(self._pump(self._client[0], self._server[1], (Cut.SILENT, Cut.HALF_CLOSED))),
            asyncio.ensure_future(self._pump(self._server[0], self._client[1], tuple(Cut))),
        ]
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([*pumps, over], return_when=asyncio.FIRST_COMPLETED)
            if self.is_cut:
                await over  # the other side is not told before `heal`
        finally:
            for task in (*pumps, over):
                task.cancel()
            await asyncio.gather(*pumps, over, return_exceptions=True)
            for writer in (self._client[1], self._server[1]):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: tuple[Cut, ...]) -> None:
        while data := await reader.read(READ_BYTES):
            if self._cut not in lost:
                writer.write(data)
                await writer.drain()


def _send_reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a host does that knows nothing of it."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
