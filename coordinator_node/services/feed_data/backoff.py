"""When a source that failed may be asked again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from coordinator_node.feeds.errors import RetryableFeedError
from coordinator_node.runtime.loop import jittered

FIRST_SECONDS = 1.0
MOST_SECONDS = 60.0


class Backoff:
    """After the first failure in a row at once, then after 1, 2, 4 … 60 s; always as long as the venue asked for.

    Once at once, because most failures are a connection that the venue closed, and a new one works.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._ready_at: datetime | None = None
        self.failures = 0

    @property
    def ready(self) -> bool:
        """Whether it may be asked now."""
        return self._ready_at is None or self._clock() >= self._ready_at

    def failed(self, error: RetryableFeedError) -> float:
        """Take note of a failure; returns the seconds until the next try."""
        self.failures += 1
        seconds = 0.0
        if self.failures > 1:
            # A bounded exponent, because failures may go on for days.
            seconds = jittered(min(FIRST_SECONDS * 2.0 ** min(self.failures - 2, 10), MOST_SECONDS))
        if error.retry_after is not None:
            seconds = max(seconds, error.retry_after, jittered(error.retry_after))
        self._ready_at = self._clock() + timedelta(seconds=seconds)
        return seconds

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0
        self._ready_at = None
