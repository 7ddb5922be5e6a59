"""Answers that are encoded by hand, because they are long or asked for often."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic_core import to_json

JSON = "application/json"

COMPRESSED_ABOVE = 1024
"""So many bytes of an answer go out as they are; longer ones are compressed where the client takes it."""

COMPRESSION = 4
"""Of gzip's levels; higher ones take several times as long for a few per cent less."""

UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It has not changed since the answer with the ETag in If-None-Match."}
}
"""The part of an endpoint's `responses` that says that it answers with an ETag."""


def json_answer(rows: Sequence[Any], headers: Mapping[str, str] | None = None) -> Response:
    """Rows as JSON, without a second look at each of them; whoever makes them answers for their shape."""
    return Response(to_json(rows, inf_nan_mode="null"), media_type=JSON, headers=headers)


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
        plain = to_json(rows, inf_nan_mode="null")
        compressed = gzip.compress(plain, COMPRESSION, mtime=0) if len(plain) > COMPRESSED_ABOVE else None
        # Weak, because plain and compressed are one answer to it.
        return cls(version, plain, compressed, f'W/"{hashlib.sha256(plain).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """What to send: 304 to whoever has it already."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if self.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
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

    async def _look(self, key: Hashable, make: Make) -> Encoded:
        try:
            encoded = self._encoded[key] = await run_in_threadpool(make, self._encoded.get(key))
            return encoded
        finally:
            del self._looking[key]
