"""Answers that are long or asked for often: encoded by hand, and not sent again to whoever has them already."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic_core import to_json

from coordinator_node.api.compression import COMPRESSED_ABOVE, compress, takes_gzip

JSON = "application/json"

UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It has not changed since the answer with the ETag in If-None-Match."}
}
"""The part of an endpoint's `responses` that says that it answers with an ETag."""


REVALIDATED = {"Cache-Control": "no-cache"}
"""Whoever keeps the answer asks each time whether it is still the same."""


def tag_of(body: bytes) -> str:
    """The ETag of a body. Weak, because plain and compressed are one answer to it."""
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


def has_it(request: Request, etag: str) -> bool:
    """Whether the client says that it holds what the tag stands for."""
    held = ",".join(request.headers.getlist("if-none-match"))
    return held.strip() == "*" or etag.removeprefix("W/") in (tag.strip().removeprefix("W/") for tag in held.split(","))


class TaggedRoute(APIRoute):
    """A route whose answers bear the ETag of their body, and are 304 to whoever has them already.

    For what changes only once a score cycle, or more seldom: a page that asks for it every few seconds gets it once.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler as it was, and the tag."""
        handle = super().get_route_handler()

        async def tagged(request: Request) -> Response:
            answer = await handle(request)
            if request.method != "GET" or answer.status_code != 200 or "etag" in answer.headers:
                return answer
            etag = tag_of(bytes(answer.body))
            answer.headers.update({"ETag": etag, **REVALIDATED})
            if not has_it(request, etag):
                return answer
            kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
            return Response(status_code=304, headers={"vary": "Accept-Encoding", **kept})

        return tagged


def encode(rows: Any) -> bytes:
    """Rows as JSON, NaN and infinities as null."""
    try:
        return orjson.dumps(rows)
    except TypeError:  # an integer of more than 64 bits, or a model of pydantic's: the slower encoder takes both
        return to_json(rows, inf_nan_mode="null")


def json_answer(
    request: Request, rows: Sequence[Any], headers: Mapping[str, str] | None = None, *, tagged: bool = False
) -> Response:
    """Rows as JSON, without a second look at each of them; whoever makes them answers for their shape.

    All that a long answer takes is done here, in the endpoint's thread, not in the loop that serves everybody.

    Args:
        request: what is answered; it says whether to compress, and what its sender has already.
        rows: the body.
        headers: of the answer.
        tagged: whether it bears the ETag of its body, and is 304 to whoever has that.
    """
    body = encode(rows)
    told = {"Vary": "Accept-Encoding", **(headers or {})}
    if tagged:
        etag = tag_of(body)
        told |= {"ETag": etag, **REVALIDATED}
        if has_it(request, etag):
            return Response(status_code=304, headers=told)
    if len(body) > COMPRESSED_ABOVE and takes_gzip(request.headers):
        return Response(compress(body), media_type=JSON, headers=told | {"Content-Encoding": "gzip"})
    return Response(body, media_type=JSON, headers=told)


@dataclass(frozen=True)
class Encoded:
    """An answer ready to be sent, and the version of what it was made from."""

    version: Hashable
    plain: bytes
    compressed: bytes | None
    etag: str

    @classmethod
    def of(cls, version: Hashable, rows: Any) -> Encoded:
        """The rows encoded."""
        plain = encode(rows)
        compressed = compress(plain) if len(plain) > COMPRESSED_ABOVE else None
        return cls(version, plain, compressed, tag_of(plain))

    def answer(self, request: Request) -> Response:
        """What to send: 304 to whoever has it already."""
        headers = {"ETag": self.etag, "Vary": "Accept-Encoding", **REVALIDATED}
        if has_it(request, self.etag):
            return Response(status_code=304, headers=headers)
        if self.compressed is not None and takes_gzip(request.headers):
            return Response(self.compressed, media_type=JSON, headers=headers | {"Content-Encoding": "gzip"})
        return Response(self.plain, media_type=JSON, headers=headers)


type Make = Callable[[Encoded | None], Encoded]
"""Gives the answer as of now; the one given, if nothing that it was made from has changed."""


class SharedAnswers:
    """Answers that many ask for at once: who comes while one is looked up waits for it, instead of asking too.

    Whoever comes alone always gets what is stored now.
    """

    def __init__(self) -> None:
        self._encoded: dict[Hashable, Encoded] = {}
        self._looking: dict[Hashable, asyncio.Task[Encoded]] = {}

    async def get(self, key: Hashable, make: Make) -> Encoded:
        """The answer under a key; of all who ask meanwhile, one runs `make`, in a thread."""
        task = self._looking.get(key)
        if task is None:
            task = self._looking[key] = asyncio.create_task(self._look(key, make))
        # Shielded, because others may wait for it when this client goes away.
        return await asyncio.shield(task)

    async def once(self, key: Hashable, make: Callable[[], Encoded]) -> Encoded:
        """The answer under a key that is made for the first who asks, and stays the same."""
        return self._encoded.get(key) or await self.get(key, lambda last: last or make())

    async def _look(self, key: Hashable, make: Make) -> Encoded:
        try:
            encoded = self._encoded[key] = await run_in_threadpool(make, self._encoded.get(key))
            return encoded
        finally:
            del self._looking[key]
