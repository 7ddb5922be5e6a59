"""Counts the API's own requests, and answers what went wrong in one that nothing else answered."""

from __future__ import annotations

import logging
import time

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client import Counter, Histogram
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator_node.runtime.metrics import REGISTRY

# Not structlog's, whose traceback may show variables, and with them keys, where nobody has configured it.
log = logging.getLogger(__name__)

REQUESTS = Counter(
    "coordinator_api_requests_total",
    "Requests that were answered, by route, method and status.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "coordinator_api_request_seconds",
    "How long it took until an answer began.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    registry=REGISTRY,
)
# What has no route, and what was refused before one was looked for; a path would make labels without end.
NO_ROUTE = "none"
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


class RequestMetricsMiddleware:
    """Counts and times requests. An error that reaches it is logged with its traceback and answered with 500."""

    def __init__(self, app: ASGIApp, routes: FastAPI) -> None:
        self._app = app
        self._routes = routes
        self._paths: dict[object, str] | None = None
        self._found: dict[tuple[object, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note what comes back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                count, seconds = self._series(scope, message["status"])
                count.inc()
                seconds.observe(time.perf_counter() - begin)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:  # a bug, or what an operator's endpoint raised: its sender is told that much and no more
            log.exception("a request failed: %s %s", scope["method"], self._route(scope))
            if begun:
                raise
            await JSONResponse({"detail": "internal error; the log says more"}, 500)(scope, receive, sending)

    def _series(self, scope: Scope, status: int) -> tuple[Counter, Histogram]:
        """What counts such an answer, and what times it; to find them by their labels takes longer than to count."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        key = scope.get("endpoint"), method, status
        found = self._found.get(key)
        if found is None:
            route = self._route(scope)
            found = self._found[key] = REQUESTS.labels(route, method, str(status)), SECONDS.labels(route)
        return found

    def _route(self, scope: Scope) -> str:
        """The path of the route as it was declared."""
        if self._paths is None:
            # At the first request, when every route is mounted.
            found = iter_route_contexts(self._routes.routes)
            self._paths = {route.endpoint: route.path for route in found if route.endpoint and route.path}
        return self._paths.get(scope.get("endpoint"), NO_ROUTE)
