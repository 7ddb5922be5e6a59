"""Answers what was meant: HEAD of whatever answers GET, and a path with a slash too many or too few at its end.

The router refuses the one with 405, and could only redirect the other to an address without the key that stood in it.
Here both are asked again as the route is declared; nothing of the request has been read by then.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_ROUTE, OTHER_METHOD = 404, 405


class _Enough(Exception):  # noqa: N818 - says that an answer without end may end, and no error
    """Stops an endpoint that goes on sending a body which nobody asked for."""


class SpellingMiddleware:
    """Asks the application again where it has no route for the method or path as they are spelled."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as it is, then as it was meant."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        spelled: Scope | None = dict(scope)
        while spelled is not None:
            attempt = _Attempt(scope, spelled, send)
            try:
                await self._app(attempt.spelled, receive, attempt.send)
            except _Enough:
                return
            finally:
                attempt.tell_endpoint()
            spelled = attempt.meant


class _Attempt:
    """One spelling of a request, and what becomes of its answer.

    Attributes:
        spelled: the scope that the application is asked with.
        meant: the scope to ask with next, once the answer was a refusal; nothing of that answer is sent.
    """

    def __init__(self, scope: Scope, spelled: Scope, send: Send) -> None:
        self.spelled = spelled
        self.meant: Scope | None = None
        self._scope = scope
        self._send = send
        self._without_body = scope["method"] == "HEAD" and spelled["method"] != "HEAD"

    def tell_endpoint(self) -> None:
        """Name the endpoint in the scope that came in, where whoever counts requests further out looks for it."""
        if "endpoint" in self.spelled:
            self._scope["endpoint"] = self.spelled["endpoint"]

    async def send(self, message: Message) -> None:
        """Send the answer on, or nothing of it."""
        if message["type"] == "http.response.start":
            self.meant = self._otherwise(message["status"])
            self.tell_endpoint()
        if self.meant is not None:
            return
        if self._without_body and message["type"] == "http.response.body":
            await self._send({"type": "http.response.body", "body": b""})
            if message.get("more_body"):
                raise _Enough
            return
        await self._send(message)

    def _otherwise(self, status: int) -> Scope | None:
        """How else the request may have been meant."""
        path, method = self.spelled["path"], self.spelled["method"]
        if status == OTHER_METHOD and method == "HEAD":
            return {**self._scope, "path": path, "method": "GET"}
        other = (path.rstrip("/") or "/") if path.endswith("/") else f"{path}/"
        # Each of the two spellings is tried once.
        if status == NO_ROUTE and "endpoint" not in self.spelled and path == self._scope["path"] != other:
            return {**self._scope, "path": other}
        return None
