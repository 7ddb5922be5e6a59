"""How often one client may ask: API_RATE_LIMIT, for each key or address."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator_node.api.auth import FOUND, Keys

# Whoever watches the service must not be turned away because someone behind the same address asks much.
UNLIMITED = frozenset({"/healthz", "/readyz", "/metrics"})
MOST_CLIENTS = 10_000
KEY_HOLDER = "key"


class TokenBuckets:
    """For each client a bucket of `count` requests, which fills evenly within `seconds`.

    At most MOST_CLIENTS are remembered; of more, those that asked longest ago are forgotten, and begin anew.
    """

    def __init__(self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._per_second = count / seconds
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take one request from a client's bucket.

        Returns:
            0 where there was one; else the seconds until there is.
        """
        now = self._clock()
        left, since = self._left.pop(client, (float(self._count), now))
        left = min(left + (now - since) * self._per_second, float(self._count))
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        if len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._per_second


class RateLimitMiddleware:
    """Answers 429 with Retry-After to a client whose bucket is empty."""

    def __init__(self, app: ASGIApp, buckets: TokenBuckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        wait = 0.0
        if scope["type"] != "lifespan" and scope["path"] not in UNLIMITED:
            wait = self._buckets.take(_client(scope))
        if not wait:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            seconds = math.ceil(wait)
            detail = {"detail": f"too many requests: try again in {seconds} s"}
            await JSONResponse(detail, 429, {"Retry-After": str(seconds)})(scope, receive, send)


def _client(scope: Scope) -> str:
    """Who asks. A wrong key does not count as one: whoever guesses keys is known by the address."""
    if scope[FOUND] is Keys.RIGHT:
        return KEY_HOLDER
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    # One machine has a whole /64 of addresses.
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
