"""What the tests of the local stack share: waiting without timing, and whether a process is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from io import StringIO

import psutil
from rich.console import Console

from coordinator_node.local.output import Output

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02


class RecordedOutput(Output):
    """An output whose printed text can be read."""

    def __init__(self) -> None:
        self._file = StringIO()
        super().__init__(Console(file=self._file, width=80))

    @property
    def text(self) -> str:
        return self._file.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits for its parent to take note has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition is true; fails the test if it never is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(POLL_SECONDS)


def until_now(condition: Callable[[], object]) -> None:
    """As `until`, outside of asyncio."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(POLL_SECONDS)
