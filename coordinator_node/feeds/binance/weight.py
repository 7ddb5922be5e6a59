"""Binance's request weight: how much of this address's allowance of the running minute is used up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from coordinator_node.feeds.venue.answers import date_ms

USED_WEIGHT = "X-MBX-USED-WEIGHT-1M"

SPOT_WEIGHT, FUTURES_WEIGHT = 6000, 2400
"""Weight a minute that the venue grants an address, spot and USD-M futures (rateLimits of its exchangeInfo)."""

USABLE_SHARE = 0.8
"""What of it is used here: other programs share the address, and going over it ends in a ban."""


class WeightGuard:
    """Remembers what the last answer said; `clock` gives monotonic seconds."""

    def __init__(self, weight_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._usable = USABLE_SHARE * weight_per_minute
        self._clock = clock
        self._resume_at = 0.0

    def note(self, headers: Mapping[str, str]) -> None:
        """Reads an answer's headers; one without the weight changes nothing."""
        text = headers.get(USED_WEIGHT, "").strip()
        if not (text.isascii() and text.isdigit()):
            return
        self._resume_at = 0.0
        if int(text) >= self._usable:
            self._resume_at = self._clock() + _seconds_to_next_minute(headers)

    def wait_seconds(self) -> float:
        """How long to wait before the next request; 0 where none is needed."""
        return max(0.0, self._resume_at - self._clock())


def _seconds_to_next_minute(headers: Mapping[str, str]) -> float:
    """By the venue's clock, whose Date is cut to the second; a whole minute where it does not say."""
    now_ms = date_ms(headers)
    return 60.0 if now_ms is None else 60.0 - now_ms // 1000 % 60
