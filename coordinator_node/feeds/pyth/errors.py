"""What Pyth's refusals mean: whether to try again, when, and what to change."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator_node.feeds.errors import FeedError, PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.venue.answers import retry_after_seconds

BANNED_SECONDS = 60.0
"""How long an address that asked too often gets 429 for everything."""


def feed_error(
    what: str, status: int, headers: Mapping[str, str], said: str, subjects: Mapping[str, str], *, with_key: bool
) -> FeedError:
    """The error for an answer that is not 2xx.

    `what` is the request, for the message; `said` the answer's body; `subjects` those asked for, by feed id;
    `with_key` whether PYTH_API_KEY was sent.
    """
    said = " ".join(said.split())[:300]
    problem = f"Pyth refuses {what} with HTTP {status}: {said or 'no reason given'}"
    if status == 429:
        asked = retry_after_seconds(headers)
        return RetryableFeedError(
            f"{problem} (more than 30 requests in 10 s from this address)",
            retry_after=BANNED_SECONDS if asked is None else asked,
        )
    if status >= 500 or status == 408:
        return RetryableFeedError(problem, retry_after=retry_after_seconds(headers))
    named = [subject for feed_id, subject in subjects.items() if feed_id in said.lower()]
    at_fault = named[0] if named else (next(iter(subjects.values())) if len(subjects) == 1 else None)
    if status == 401:
        return PermanentFeedError(f"{problem}; {_key_advice(with_key)}")
    if status == 403 and with_key:
        return PermanentFeedError(
            f"{problem}; the key in PYTH_API_KEY does not cover {at_fault or 'what was asked for'}", subject=at_fault
        )
    if status == 404 and "price ids not found" in said.lower():
        return PermanentFeedError(
            f"{problem}; correct FEED_OPT_feed_id_{at_fault or '<SYMBOL>'}, or take it out of FEED_SUBJECTS",
            subject=at_fault,
        )
    return PermanentFeedError(f"{problem}; see PYTH_HERMES_URL and PYTH_BENCHMARKS_URL")


def _key_advice(with_key: bool) -> str:
    if with_key:
        return "the key in PYTH_API_KEY is not accepted: set it to a valid one"
    return "Hermes has required a key since 2026-08-26: set PYTH_API_KEY, or FEED_SOURCE to another source"
