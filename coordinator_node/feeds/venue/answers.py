"""What the headers of a venue's answers say about time."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from coordinator_node.feeds.micros import epoch_micros


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long Retry-After asks to wait, at least 0; None where it is absent or unreadable.

    It is a number of seconds or an HTTP date (RFC 9110, 10.2.3), which counts from the answer's own Date.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until, since = _http_date_ms(text), date_ms(headers)
    return None if until is None or since is None else max(0.0, (until - since) / 1000)


def date_ms(headers: Mapping[str, str]) -> int | None:
    """The answer's Date in epoch milliseconds, to the second below; None where it is absent or unreadable."""
    return _http_date_ms(headers.get("Date", ""))


def _http_date_ms(text: str) -> int | None:
    try:
        return epoch_micros(parsedate_to_datetime(text)) // 1000
    except (ValueError, TypeError, OverflowError):
        return None
