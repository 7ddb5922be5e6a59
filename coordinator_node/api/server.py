"""The web server around the report API, as a worker's body runs it."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from coordinator_node.api.connections import PatientProtocol, allow_many_connections
from coordinator_node.api.context import ReportContext

# Less than a worker's DRAIN_SECONDS: what is cut off afterwards needs a moment too.
DRAIN_SECONDS = 7
BACKLOG = 2048


def listen_on(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        SystemExit: it cannot be had; one line that names host, port and reason goes to stderr, the exit code is 1.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SystemExit(
            f"report worker: cannot listen on {host}:{port}: {reason}; end what uses it, or set REPORT_API_HOST and"
            " REPORT_API_PORT"
        ) from None


async def serve(app: FastAPI, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then let running requests end, for at most DRAIN_SECONDS.

    Raises:
        RuntimeError: the application did not start.
    """
    allow_many_connections()
    context: ReportContext = app.state.context
    server = _Server(_configuration(app, context))
    ending = asyncio.create_task(_end_when(stop, server, context))
    try:
        _look_through_routes(app)
        with _lasting():
            await server.serve(sockets=[listener])
    except SystemExit:
        raise RuntimeError("the API did not start; the log says why") from None
    finally:
        ending.cancel()
        await asyncio.to_thread(context.database.cancel_running)


def _configuration(app: FastAPI, context: ReportContext) -> uvicorn.Config:
    proxies = context.settings.api_trusted_proxies
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        log_config=None,
        # At DEBUG it writes the headers of WebSockets, and with them keys.
        log_level=max(logging.getLogger().level, logging.INFO),
        # It would write whole URLs, and with them keys.
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the worker has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _look_through_routes(app: FastAPI) -> None:
    """Ask every route whether it answers a request that nobody made.

    FastAPI makes what a route needs when it is looked at for the first time. The first request would wait 170 ms for
    it, and the garbage collector would look at it again and again.
    """
    for route in app.routes:
        route.matches({"type": "http", "method": "", "path": "", "root_path": "", "query_string": b"", "headers": []})


@contextmanager
def _lasting() -> Iterator[None]:
    """Let the garbage collector look no more at what is there already.

    An application with its routes and models is 165,000 objects, and whoever asks while all are looked at waits 115 ms.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _end_when(stop: asyncio.Event, server: uvicorn.Server, context: ReportContext) -> None:
    await stop.wait()
    # Streams have no end of their own, so the server would wait for them.
    context.live.close()
    server.should_exit = True
