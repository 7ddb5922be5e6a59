"""Keeps requests within a venue's limit."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """At most `burst` requests at once and `per_second` on average: in any T seconds at most burst + per_second * T.

    `clock` gives monotonic seconds.
    """

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    def reserve(self) -> float:
        """Takes one token and gives the seconds to wait before it may be used; 0 where it is there already.

        Those who reserve one after the other wait one after the other.
        """
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._per_second)

    def seconds_for(self, requests: int) -> float:
        """About how long so many requests take, one after the other, from a full bucket."""
        return max(0, requests - self._burst) / self._per_second
