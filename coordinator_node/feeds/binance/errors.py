"""What Binance's refusals mean: whether to try again, when, and what to change."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator_node.feeds.errors import FeedError, PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.venue.answers import retry_after_seconds

BUSY_SECONDS, BANNED_SECONDS = 60.0, 120.0
"""How long to wait after a 429 and a 418 that do not say; bans last from two minutes on."""

INVALID_SYMBOL_CODES = (-1121, -1100)
"""-1121: no such symbol; -1100: characters that no symbol has."""

PASSING_CODES = (-1000, -1001, -1003, -1006, -1007, -1008)
"""Binance's own troubles: unknown error, disconnected, too many requests, no answer of a backend, overload."""


def feed_error(
    what: str, status: int, headers: Mapping[str, str], code: int | None, said: str, subject: str | None
) -> FeedError:
    """The error for an answer that is not 2xx.

    `what` is the request, for the message; `code` and `said` what Binance's error body holds, None and the body where
    it is none; `subject` the one that was asked for.
    """
    problem = f"Binance refuses {what} with HTTP {status}: {said or 'no reason given'}"
    asked = retry_after_seconds(headers)
    if status in (418, 429):
        wait = asked if asked is not None else (BANNED_SECONDS if status == 418 else BUSY_SECONDS)
        return RetryableFeedError(f"{problem} (too many requests from this address)", retry_after=wait)
    if status >= 500 or status == 408 or code in PASSING_CODES:
        return RetryableFeedError(problem, retry_after=asked)
    if code in INVALID_SYMBOL_CODES and subject is not None:
        return PermanentFeedError(
            f"{problem}; the subject {subject} is no symbol there: take it out of FEED_SUBJECTS, "
            f"or set FEED_OPT_symbol_{subject} or FEED_OPT_quote",
            subject=subject,
        )
    if status in (401, 403, 451):
        return PermanentFeedError(
            f"{problem}; the venue does not serve this address or key: see FEED_OPT_api_url for another host of it"
        )
    return PermanentFeedError(problem)
