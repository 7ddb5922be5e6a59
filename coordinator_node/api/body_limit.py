"""How much a request may bring: 1 MiB, and 16 MiB for the rows of a tournament's round.

By path, not by FastAPI's limit of a router, because workspaces of 0.1.84 bring tournament routers of their own.
"""

from __future__ import annotations

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1024 * 1024
MOST_TOURNAMENT_BYTES = 16 * 1024 * 1024
TOURNAMENT = "/tournament/"


class BodyLimitMiddleware:
    """Answers 413 to a body that is too large: before it is read where its length is said, else as soon as it shows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a body that ends at the limit, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = MOST_TOURNAMENT_BYTES if scope["path"].startswith(TOURNAMENT) else MOST_BYTES
        said = Headers(scope=scope).get("content-length", "")
        if said.isdecimal() and int(said) > most:
            await JSONResponse({"detail": _too_large(most).detail}, 413)(scope, receive, send)
            return
        got = 0

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                # Where the body is read an HTTPException becomes the answer.
                raise _too_large(most)
            return message

        await self._app(scope, bounded, send)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {most} bytes")
