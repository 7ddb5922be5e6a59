"""gzip, for whoever says in Accept-Encoding that it may come so."""

from __future__ import annotations

import re

from isal import isal_zlib
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

COMPRESSED_ABOVE = 1024
"""So many bytes of an answer go out as they are; longer ones are compressed where the client takes it."""

_GZIP = 31
"""What zlib calls the format: its widest window, and gzip's header."""

# RFC 9110, section 8.4.1.3: the older name means the same.
_NAMES = ("gzip", "x-gzip")
_WEIGHT = re.compile(r"\s*q=(0(?:\.\d*)?|1(?:\.0*)?)\s*", re.IGNORECASE)

_LEVEL = 4
"""Of gzip's levels, for what no endpoint compresses itself; higher ones take several times as long for a few per cent
less."""


def compress(body: bytes) -> bytes:
    """A body for whoever takes gzip; as small as zlib's usual level makes it, in a tenth of the time."""
    compressed: bytes = isal_zlib.compress(body, isal_zlib.ISAL_DEFAULT_COMPRESSION, _GZIP)
    return compressed


def takes_gzip(headers: Headers) -> bool:
    """Whether a request would rather have gzip than the plain answer (RFC 9110, section 12.5.3).

    By its weights: `gzip;q=0` refuses it, `*` stands for whatever is not named, and where it weighs as much as the
    plain answer it is preferred. Whoever sends no such header gets the plain answer: it may know no other.
    """
    weights: dict[str, float] = {}
    for part in ",".join(headers.getlist("accept-encoding")).split(","):
        name, _, parameters = part.partition(";")
        weights[name.strip().lower()] = _weight(parameters)
    others = weights.get("*", 0.0)
    wanted = max((weights[name] for name in _NAMES if name in weights), default=others)
    return wanted > 0 and wanted >= weights.get("identity", 0.0)


def _weight(parameters: str) -> float:
    """The weight of a coding; 1 where none is given, 0 where it cannot be read: the plain answer is never wrong."""
    if not parameters.strip():
        return 1.0
    found = _WEIGHT.fullmatch(parameters)
    return float(found[1]) if found else 0.0


class CompressionMiddleware(GZipMiddleware):
    """Starlette's, which looks for the letters `gzip` alone, and would compress for who refuses it.

    So it and all behind it see what the header comes to: gzip, or nothing.
    """

    def __init__(self, app: ASGIApp, exclude_content_types: tuple[str, ...]) -> None:
        super().__init__(
            app, minimum_size=COMPRESSED_ABOVE + 1, compresslevel=_LEVEL, exclude_content_types=exclude_content_types
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer back compressed where it may be."""
        if scope["type"] == "http":
            asked = [(b"accept-encoding", b"gzip")] if takes_gzip(Headers(scope=scope)) else []
            scope["headers"] = [*(header for header in scope["headers"] if header[0] != b"accept-encoding"), *asked]
        await super().__call__(scope, receive, send)
