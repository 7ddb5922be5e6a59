"""Connections that end when their client does not get on with its request or its answer, or sends a head without end.

Without this, whoever opens a connection and sends or takes one byte now and then holds it for as long as they like, and
whoever goes on sending headers fills the memory with them.
"""

from __future__ import annotations

import asyncio
import json
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""How long a request's first line and headers may take, from the connection's start or the request's first byte."""

BODY_SECONDS = 60.0
"""How long its body may take from there."""

READ_SECONDS = 60.0
"""How long a client may take no more of an answer of which some 64 KiB wait for it."""

MOST_HEAD_BYTES = 256 * 1024
"""How much of a request may be something else than its body: its first line, headers, what frames its chunks, trailers;
and as much again as arrives at once."""

MOST_FILES = 65_536


def _last_words(status: str, detail: str) -> bytes:
    """A whole answer, after which the connection ends."""
    body = json.dumps({"detail": detail}).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


_TOO_SLOW = _last_words("408 Request Timeout", "the request did not arrive in time")
_TOO_LARGE = _last_words(
    "431 Request Header Fields Too Large", f"the request's head is larger than {MOST_HEAD_BYTES} bytes"
)
_NO_HTTP = _last_words("400 Bad Request", "this is no HTTP request")


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a deadline for each request to have arrived in full, and for its answer to be taken."""

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    # Of the present request: what was no body, and what of the data just received was.
    _head_bytes = 0
    _body_bytes = 0
    _begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Give the first request its time."""
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._expect(None)
        self._wait_for_reader(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it, and count what of it is kept though it is no body."""
        self._body_bytes, self._begun = 0, False
        super().data_received(data)
        # Of data in which a request begins it cannot be told how much is the request's.
        self._head_bytes = 0 if self._begun else self._head_bytes + len(data) - self._body_bytes
        if self._head_bytes > MOST_HEAD_BYTES:
            self._give_up(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Give the headers their time."""
        super().on_message_begin()
        self._begun = True
        self._expect(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """Give the body its time."""
        self._expect(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """It has limits of its own."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here; uvicorn's own limit holds until the next begins."""
        self._expect(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Say it as all errors are said."""
        self._give_up(_NO_HTTP)

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is another protocol's."""
        self._expect(None)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """The answer is produced faster than it is taken: give its reader time to go on."""
        super().pause_writing()
        self._wait_for_reader(READ_SECONDS)

    def resume_writing(self) -> None:
        """Most of what waited is taken."""
        self._wait_for_reader(None)
        super().resume_writing()

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._give_up, _TOO_SLOW)

    def _wait_for_reader(self, seconds: float | None) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        # Closed it would still wait until all is taken.
        self._stalled = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def _give_up(self, last_words: bytes) -> None:
        if self.transport.is_closing():
            return
        # An answer that has begun, to this request or to the one before it, must not get another into its middle.
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(last_words)
        self.transport.close()


def allow_many_connections() -> None:
    """Let the process have as many open files as the system allows it, up to MOST_FILES; many begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
