"""The API's door: no request passes without the key where it needs one.

It stands before routing and before any body is read, so that it also covers unknown paths and custom routes.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator_node.api.access import READING_METHODS, AccessRules
from coordinator_node.config.settings import Settings
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

HOW = "send it as X-API-Key, as Authorization: Bearer, or as ?api_key="
# A WebSocket may carry anything once it is open, so it counts as a method that writes.
WEBSOCKET = "WEBSOCKET"


class AuthMiddleware:
    """Answers 401 (403 where writing is closed altogether) instead of the application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._rules = AccessRules(settings)
        self._key = settings.api_key.get_secret_value().encode()
        self._writing_closed = not self._key and settings.network == "mainnet-beta"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        method = scope.get("method", WEBSOCKET)
        if self._writing_closed and method not in READING_METHODS:
            return JSONResponse(
                {"detail": "writing is closed: NETWORK is mainnet-beta and no API_KEY is set; set API_KEY to open it"},
                403,
            )
        if not self._key or not self._rules.needs_key(method, scope["path"]):
            return None
        given = list(_keys(scope))
        # Every key is compared, so that the time taken says nothing about which one was close.
        if any([hmac.compare_digest(key, self._key) for key in given]):
            return None
        problem = f"wrong key: {HOW}" if given else f"this needs the key: {HOW}"
        return JSONResponse({"detail": problem}, 401, {"WWW-Authenticate": "Bearer"})


def warn_if_open(settings: Settings) -> None:
    """Say at start what an API without a key means."""
    if not settings.api_key.get_secret_value():
        writing = "closed" if settings.network == "mainnet-beta" else "open to everybody who reaches it"
        log.warning("API_KEY is not set: reading is open to everybody who reaches the API", writing=writing)


def _keys(scope: Scope) -> Iterator[bytes]:
    headers = Headers(scope=scope)
    for value in headers.getlist("x-api-key"):
        yield value.strip().encode("latin-1")
    for value in headers.getlist("authorization"):
        scheme, _, key = value.partition(" ")
        if scheme.lower() == "bearer":
            yield key.strip().encode("latin-1")
    for value in parse_qs(scope["query_string"].decode("latin-1")).get("api_key", []):
        yield value.encode()
