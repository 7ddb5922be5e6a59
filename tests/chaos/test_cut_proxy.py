"""The proxy that faults are made with does to connections what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cut_proxy import Cut, CutProxy


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[CutProxy, list[bytes]]]:
    """A proxy in front of a server that keeps what it was sent and sends it back."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                heard.append(data)
                writer.write(data)
        except ConnectionError:
            heard.append(b"reset")
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with CutProxy(lambda: asyncio.open_connection("127.0.0.1", port)).serving() as proxy:
        yield proxy, heard
        for writer in opened:
            writer.transport.abort()
        opened.clear()
    server.close()
    await asyncio.sleep(0.01)  # what was aborted is closed in the loop's next rounds


opened: list[asyncio.StreamWriter] = []


async def connect(proxy: CutProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    opened.append(writer)
    return reader, writer


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes = b"hello") -> bytes:
    writer.write(text)
    return await asyncio.wait_for(reader.read(100), 5)


async def silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(100), 0.1)
    except TimeoutError:
        return True
    return False


async def test_everything_passes_and_an_end_is_passed_on() -> None:
    async with echo() as (proxy, heard):
        reader, writer = await connect(proxy)
        assert await said(reader, writer) == b"hello"
        assert heard == [b"hello"]
        writer.close()
        while proxy.connected:
            await asyncio.sleep(0.01)


async def test_refused_resets_what_is_connected_and_what_connects() -> None:
    async with echo() as (proxy, heard):
        reader, writer = await connect(proxy)
        assert await said(reader, writer) == b"hello"
        proxy.cut(Cut.REFUSED)
        with pytest.raises(ConnectionError):
            await said(reader, writer)
        late_reader, late_writer = await connect(proxy)
        with pytest.raises(ConnectionError):
            await said(late_reader, late_writer)
        proxy.heal()
        assert await said(*await connect(proxy)) == b"hello"
        assert b"hello" in heard


async def test_silence_loses_both_directions_and_is_ended_by_a_reset() -> None:
    async with echo() as (proxy, heard):
        reader, writer = await connect(proxy)
        assert await said(reader, writer) == b"hello"
        proxy.cut(Cut.SILENT)
        late_reader, late_writer = await connect(proxy)
        writer.write(b"lost")
        late_writer.write(b"lost too")
        assert await silent(reader)
        assert await silent(late_reader)
        proxy.heal()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.read(100), 5)
        assert b"lost" not in b"".join(heard)


async def test_unanswered_lets_what_is_sent_arrive() -> None:
    async with echo() as (proxy, heard):
        reader, writer = await connect(proxy)
        proxy.cut(Cut.UNANSWERED)
        writer.write(b"commit")
        assert await silent(reader)
        assert heard == [b"commit"]


async def test_half_closed_ends_the_client_alone() -> None:
    async with echo() as (proxy, heard):
        reader, writer = await connect(proxy)
        assert await said(reader, writer) == b"hello"
        proxy.cut(Cut.HALF_CLOSED)
        assert await said(reader, writer, b"lost") == b""
        assert proxy.connected == 1
        assert await said(*await connect(proxy), b"again") == b"again"
        assert heard == [b"hello", b"again"]
