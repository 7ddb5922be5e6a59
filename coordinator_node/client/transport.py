"""Requests to the report API: the key, time limits, repetitions, pages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from pydantic import TypeAdapter, ValidationError

from coordinator_node.client.errors import ApiAnswerError, ApiUnreachableError
from coordinator_node.entities.times import as_utc

CONNECT_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
CHUNK_BYTES = 256 * 1024
MOST_SHOWN = 200
"""Characters of a refusal that is not the API's own."""

# The API, or what stands before it, may do better soon.
WORTH_REPEATING = frozenset({429, 502, 503, 504})

# What may be gone at the next try; the others are faults of the request itself.
PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)

type Parameters = Mapping[str, object]


class Transport:
    """One API's address and key, and the connection to it.

    What only reads is repeated when the API cannot be reached or says that it is busy, up to `attempts` times with
    growing pauses, or as long as Retry-After says. What changes something is repeated only where the API refused to
    look at it (429): whether a lost answer was a yes cannot be known.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeout_seconds: float,
        attempts: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._shown = without_password(self._base)
        self._timeout = (min(CONNECT_SECONDS, timeout_seconds), timeout_seconds)
        self._attempts = attempts
        self._sleep = sleep
        self._session = requests.Session()
        if api_key:
            self._session.headers["X-API-Key"] = api_key

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def rest(self) -> None:
        """Wait for a moment, before something is begun anew."""
        self._sleep(_pause(1, None))

    def get(self, path: str, parameters: Parameters | None = None, *, also: frozenset[int] = frozenset()) -> Any:
        """The JSON that a path answers; statuses of `also` count as answers too.

        Raises:
            ApiUnreachableError: no answer.
            ApiAnswerError: another status than 200, or no JSON.
        """
        return _json(self.send("GET", path, parameters, also=also))

    def change(self, method: str, path: str, body: object) -> Any:
        """The JSON that a path answers to a request that changes something.

        Raises:
            ApiUnreachableError: no answer; whether it was done is not known.
            ApiAnswerError: another status than one of success, or no JSON.
        """
        return _json(self.send(method, path, body=body))

    def pages(self, path: str, parameters: Parameters) -> Iterator[Any]:
        """Every row of a list, page after page, each asked for when it is needed.

        Raises:
            ApiUnreachableError: no answer.
            ApiAnswerError: another status than 200, or no list.
        """
        cursor: str | None = None
        while True:
            answer = self.send("GET", path, {**parameters, "cursor": cursor})
            rows = _json(answer)
            if not isinstance(rows, list):
                raise ApiAnswerError(f"GET {path}", answer.status_code, "the answer is no list")
            yield from rows
            following = _next_cursor(answer)
            # A page may be empty and not the last one: of rewards, where none of its checkpoints ranks a model.
            if following is None or following == cursor:
                return
            cursor = following

    def save(self, path: str, place: Path, known: str | None = None) -> requests.Response:
        """The answer whose body was written to a file, from its beginning again where the connection broke.

        With `known`, an ETag, the answer may be a 304: then nothing was written.

        Raises:
            ApiUnreachableError: no answer, or never a whole one.
            ApiAnswerError: another status than 200, or with `known` 304.
            OSError: the file cannot be written.
        """
        headers = {} if known is None else {"If-None-Match": known}
        also = frozenset[int]() if known is None else frozenset({requests.codes.not_modified})
        for attempt in range(1, self._attempts + 1):
            answer = self.send("GET", path, also=also, stream=True, headers=headers)
            try:
                with closing(answer):
                    if answer.status_code != requests.codes.not_modified:
                        _write(answer, place)
                return answer
            except requests.RequestException:
                if attempt == self._attempts:
                    raise ApiUnreachableError(f"GET {self._shown}{path}: the connection broke; ask again") from None
            self._sleep(_pause(attempt, None))
        raise AssertionError("the last attempt returns or raises")

    def send(
        self,
        method: str,
        path: str,
        parameters: Parameters | None = None,
        *,
        body: object = None,
        also: frozenset[int] = frozenset(),
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The answer to one request, after as many repetitions as it took.

        Raises:
            ApiUnreachableError: no answer.
            ApiAnswerError: a status that is neither of success nor in `also`.
        """
        reads = method == "GET"
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                answer = self._session.request(
                    method,
                    self._base + path,
                    params=_query(parameters or {}),
                    json=body,
                    headers=headers,
                    timeout=self._timeout,
                    stream=stream,
                    # A redirect may lead to a host whose business the key is not.
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                if last or not reads or not isinstance(error, PASSING):
                    # Without the library's text, which holds the whole address.
                    raise ApiUnreachableError(f"{method} {self._shown}{path}: {_what_happened(error)}") from None
                self._sleep(_pause(attempt, None))
                continue
            status = answer.status_code
            if 200 <= status < 300 or status in also:
                return answer
            if last or status not in (WORTH_REPEATING if reads else {429}):
                raise _refusal(f"{method} {path}", answer)
            self._sleep(_pause(attempt, answer.headers.get("Retry-After")))
        raise AssertionError("the last attempt returns or raises")


def parsed[T](kind: type[T], value: Any) -> T:
    """An answer's JSON as its type.

    Raises:
        ApiAnswerError: it is not of that type; the API may be of another version.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise ApiAnswerError(f"reading the answer's {where or 'body'}", 200, fault["msg"]) from None


def without_password(address: str) -> str:
    """The address as errors may show it: without the password of a proxy before the API.

    Raises:
        ValueError: it has a query, behind which no path can stand, and in which a key would be shown everywhere.
    """
    scheme, found, rest = address.rpartition("://")
    if "?" in rest or "#" in rest:
        raise ValueError("the API's address must end before any ? or #; give the key as api_key")
    host, slash, path = rest.partition("/")
    return f"{scheme}{found}{host.rpartition('@')[2]}{slash}{path}"


def _query(parameters: Parameters) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in parameters.items():
        values = value if isinstance(value, list | tuple) else [value]
        found += [(name, _text(each)) for each in values if each is not None]
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return as_utc(value).isoformat() if isinstance(value, datetime) else str(value)


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.exceptions.JSONDecodeError:
        raise ApiAnswerError(_named(answer), answer.status_code, "the answer is no JSON") from None


def _next_cursor(answer: requests.Response) -> str | None:
    """Only the cursor of a Link is followed, never its address: behind a proxy that may name a host nobody reaches."""
    given = answer.headers.get("X-Next-Cursor")
    if given:
        return given
    link = answer.links.get("next", {}).get("url", "")
    found = parse_qs(urlsplit(link).query).get("cursor", [])
    return found[0] if found else None


def _refusal(request: str, answer: requests.Response) -> ApiAnswerError:
    if 300 <= answer.status_code < 400:
        target = urlsplit(answer.headers.get("Location", ""))
        detail: Any = f"it redirects to {target.scheme}://{target.netloc}{target.path}: use the address that it means"
    else:
        detail = _detail(answer)
    return ApiAnswerError(request, answer.status_code, detail)


def _detail(answer: requests.Response) -> Any:
    """What a refusal says; where it is not the API's own, its beginning, for what stands before the API may say why."""
    try:
        return answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return " ".join(answer.text.split())[:MOST_SHOWN] or answer.reason or "no reason given"
    except requests.RequestException:
        return answer.reason or "no reason given"  # the connection broke before the reason


def _named(answer: requests.Response) -> str:
    return f"{answer.request.method} {urlsplit(answer.url).path}"


def _what_happened(error: requests.RequestException) -> str:
    """Without the library's text: it may hold the whole address, or the key where that makes no header."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if not isinstance(error, PASSING):
        return f"this cannot be asked: {type(error).__name__}; is the address right, and the key one line of ASCII?"
    if not isinstance(error, requests.ConnectionError):
        return "the connection broke; ask again"
    cause: BaseException | None = error
    while cause is not None and (isinstance(cause, requests.RequestException) or not isinstance(cause, OSError)):
        cause = cause.__cause__ or cause.__context__
    return f"no connection: {cause.strerror}" if cause is not None and cause.strerror else "no connection"


def _write(answer: requests.Response, place: Path) -> None:
    with place.open("wb") as writing:
        for chunk in answer.iter_content(CHUNK_BYTES):
            writing.write(chunk)


def _pause(attempt: int, retry_after: str | None) -> float:
    """Seconds to wait: what the API asks for, else doubling from FIRST_PAUSE_SECONDS, a little apart from others'."""
    if retry_after is not None and retry_after.isdecimal():
        return min(float(retry_after), LONGEST_PAUSE_SECONDS)
    whole = min(FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
    return whole * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
