"""How a request to the report API can fail. No message holds a key."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request failed."""


class ApiUnreachableError(ApiError):
    """The API did not answer, or not in time, however often it was tried."""


class ApiAnswerError(ApiError):
    """The API answered, but not with what was asked for.

    Attributes:
        status: the HTTP status.
        detail: what the API says, usually a sentence; of a 422 a list of faults.
    """

    def __init__(self, request: str, status: int, detail: Any) -> None:
        super().__init__(f"{request}: {status}: {detail}")
        self.status = status
        self.detail = detail
