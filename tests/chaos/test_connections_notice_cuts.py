"""Every connection to the database over TCP is opened so that it notices a cut, however it is cut."""

from __future__ import annotations

import asyncio
import os
import socket

import psycopg
from cut_proxy import CutProxy
from sqlalchemy import make_url

from coordinator_node.db.engine import make_engine
from coordinator_node.runtime.notify import libpq_url


def tcp_options(connection: psycopg.Connection) -> dict[str, int]:
    with socket.socket(fileno=os.dup(connection.fileno())) as opened:
        return {
            "idle": opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            "interval": opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            "count": opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            "unacknowledged": opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        }


async def test_connections_of_the_pool_and_of_listeners(database_url: str) -> None:
    url = make_url(database_url)
    folder = str(url.query["host"])

    async with CutProxy(lambda: asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")).serving() as proxy:
        engine = make_engine(url.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(False))

        def look() -> list[dict[str, int]]:
            with engine.connect() as pooled, psycopg.connect(libpq_url(engine)) as listener:
                return [tcp_options(pooled.connection.driver_connection), tcp_options(listener)]

        expected = {"idle": 5, "interval": 3, "count": 3, "unacknowledged": 15_000}
        assert await asyncio.to_thread(look) == [expected, expected]
        await asyncio.to_thread(engine.dispose)
