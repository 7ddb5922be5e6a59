"""Answers that are ready to be sent, to whoever asks for them as everybody does: by GET, without parameters.

What stands in front of all routes has let the request pass by then, and its errors are answered as all are; only the
search for the route, its parameters and dependencies are spared. They take several times as long as the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from coordinator_node.api.answers import Encoded
from coordinator_node.api.auth import TierGuard
from coordinator_node.api.context import ReportContext


@dataclass(frozen=True)
class Ready:
    """An endpoint's answer to a request without parameters.

    Attributes:
        endpoint: the endpoint that answers all other requests to the path; requests are counted by it.
        guard: the tier that its route declares.
        answer: gives the same as the endpoint.
    """

    endpoint: Callable[..., Any]
    guard: TierGuard
    answer: Callable[[ReportContext], Awaitable[Encoded]]


class ReadyRoute(BaseRoute):
    """The route of all ready answers, by their exact paths; what is spelled otherwise goes to the routes behind it."""

    def __init__(self, app: FastAPI, answers: Mapping[str, Ready]) -> None:
        self._app = app
        self._answers = answers

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for one of the answers, as it is."""
        if scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]:
            ready = self._answers.get(scope["path"])
            if ready is not None:
                return Match.FULL, {"endpoint": ready.endpoint}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            HTTPException: the request needs a key and has none that is right.
        """
        ready = self._answers[scope["path"]]
        ready.guard.check(self._app.state.door, scope)
        encoded = await ready.answer(self._app.state.context)
        await encoded.answer(Request(scope))(scope, receive, send)


def answer_first(app: FastAPI, answers: Mapping[str, Ready]) -> None:
    """Let an application send these answers; to be called when all other routes are mounted."""
    app.router.routes.insert(0, ReadyRoute(app, answers))
