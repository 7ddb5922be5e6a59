"""The API's door: no request passes without the key where it needs one.

Every built-in route declares its tier, PUBLIC, READ or ADMIN, as a dependency; so may an operator's own.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from enum import Enum
from urllib.parse import parse_qsl

from fastapi import Depends, HTTPException
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator_node.api.access import READING_METHODS, AccessRules, Tier
from coordinator_node.config.settings import Settings
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

HOW = "send it as X-API-Key, as Authorization: Bearer, or as ?api_key="
# A WebSocket may carry anything once it is open, so it counts as a method that writes.
WEBSOCKET = "WEBSOCKET"
PARAMETER = "api_key"
# Where in a request's scope it is noted what was found among its keys.
FOUND = "coordinator_node.keys"


class Keys(Enum):
    """What a request brings: no key, only wrong ones, or the right one."""

    NONE = "none"
    WRONG = "wrong"
    RIGHT = "right"


class RefusedError(Exception):
    """Why a request may not come in: the status, the sentence for its sender, the headers of the answer."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class Door:
    """Who may come in, by the settings of one application."""

    def __init__(self, settings: Settings) -> None:
        self.rules = AccessRules(settings)
        self._key = settings.api_key.get_secret_value().encode()
        self._writing_closed = not self._key and settings.network == "mainnet-beta"

    @property
    def has_key(self) -> bool:
        """Whether there is a key to hold."""
        return bool(self._key)

    def look_at_keys(self, scope: Scope) -> None:
        """Compare the keys that a request brings, and note what was found; then take those of the query out of it.

        Whoever builds, returns or logs the address further in, an operator's code or the server, has none to leak.
        """
        if not self._key:
            scope[FOUND] = Keys.NONE
            return
        given = list(_keys(scope))
        # Every key is compared, so that the time taken says nothing about which one was close.
        right = any([hmac.compare_digest(key, self._key) for key in given])
        scope[FOUND] = Keys.RIGHT if right else Keys.WRONG if given else Keys.NONE
        scope["query_string"] = _without_keys(scope["query_string"])

    def check(self, scope: Scope, tier: Tier) -> None:
        """Let a request to something of this tier pass, by what was found among its keys.

        Raises:
            RefusedError: it may not.
        """
        method = scope.get("method", WEBSOCKET)
        if self._writing_closed and method not in READING_METHODS:
            raise RefusedError(
                403, "writing is closed: NETWORK is mainnet-beta and no API_KEY is set; set API_KEY to open it"
            )
        if not self._key or scope[FOUND] is Keys.RIGHT or not self.rules.needs_key(method, tier):
            return
        problem = f"wrong key: {HOW}" if scope[FOUND] is Keys.WRONG else f"this needs the key: {HOW}"
        raise RefusedError(401, problem, {"WWW-Authenticate": "Bearer"})


class AuthMiddleware:
    """Answers 401 (403 where writing is closed altogether) instead of the application, by the path alone.

    It stands before routing and before any body is read, so that it also covers unknown paths, pages that are no
    endpoints, and custom routes that declare nothing.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        try:
            if scope["type"] != "lifespan":
                self._door.check(scope, self._door.rules.tier_of_path(scope["path"]))
        except RefusedError as refusal:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await JSONResponse({"detail": refusal.detail}, refusal.status, refusal.headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class KeyMiddleware:
    """Looks at a request's keys, before anything else needs to know whose it is."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note what was found, and pass the request on without them."""
        if scope["type"] != "lifespan":
            self._door.look_at_keys(scope)
        await self._app(scope, receive, send)


class TierGuard:
    """A route's tier, as a dependency of the route: `dependencies=[ADMIN]`."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier

    async def __call__(self, connection: HTTPConnection) -> None:
        """Let the request pass, or refuse it.

        Raises:
            HTTPException: it needs a key and has none that is right.
        """
        self.check(connection.app.state.door, connection.scope)

    def check(self, door: Door, scope: Scope) -> None:
        """Let a request pass, or refuse it.

        Raises:
            HTTPException: it needs a key and has none that is right.
        """
        try:
            door.check(scope, door.rules.tier_of_route(self.tier, scope["path"]))
        except RefusedError as refusal:
            raise HTTPException(refusal.status, refusal.detail, refusal.headers) from None


PUBLIC = Depends(TierGuard(Tier.PUBLIC))
READ = Depends(TierGuard(Tier.READ))
ADMIN = Depends(TierGuard(Tier.ADMIN))


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
    for name, value in _parameters(scope["query_string"]):
        if name == PARAMETER:
            yield value.encode("utf-8", "surrogateescape")


def _without_keys(query: bytes) -> bytes:
    """The query as it was spelled, without the parameters that are keys."""
    kept = [part for part in query.split(b"&") if all(name != PARAMETER for name, _ in _parameters(part))]
    return b"&".join(kept)


def _parameters(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("utf-8", "surrogateescape"), keep_blank_values=True, errors="surrogateescape")
