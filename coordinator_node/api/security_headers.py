"""What browsers are told about every answer."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator_node.api.auth import FOUND, Keys

ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
# Pages need scripts, and an operator's own may be meant to be shown inside the web app.
UNLESS_A_PAGE = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    # What changes seldom says so itself; the rest, refusals among it, is nobody's to keep.
    "Cache-Control": "no-store",
}


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


_PAGE, _ANY = _encoded(ALWAYS), _encoded(ALWAYS | UNLESS_A_PAGE)


class SecurityHeadersMiddleware:
    """Adds the headers that an answer does not bring itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer back with the headers."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                given = {name.lower() for name, _ in headers.raw}
                if scope.get(FOUND) is Keys.RIGHT and b"cache-control" in given:
                    headers["Cache-Control"] = _for_one_alone(headers["cache-control"])
                page = headers.get("content-type", "").startswith("text/html")
                headers.raw.extend(header for header in (_PAGE if page else _ANY) if header[0] not in given)
            await send(message)

        await self._app(scope, receive, sending)


def _for_one_alone(caching: str) -> str:
    """The same, but no cache that others share may keep what a key was shown for."""
    directives = [each.strip() for each in caching.split(",")]
    shared = ("public", "s-maxage", "private")
    kept = [each for each in directives if each and each.lower().partition("=")[0] not in shared]
    return ", ".join(["private", *kept])
