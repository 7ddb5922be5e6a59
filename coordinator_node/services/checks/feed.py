"""The feed: a source that is there and has what is wanted of it."""

from __future__ import annotations

from coordinator_node.config.settings import Settings
from coordinator_node.feeds import DataFeed, create_default_registry
from coordinator_node.feeds.base import CheckingFeed
from coordinator_node.feeds.errors import FeedError
from coordinator_node.services.checks.findings import Finding, did_you_mean, failed, fine

CHECK = "feed"
PYTH = "pyth"


def check_source(settings: Settings) -> list[Finding]:
    """The source is there, takes its options, and `check_feed`."""
    registry = create_default_registry()
    known = registry.providers()
    if settings.feed_source not in known:
        remedy = did_you_mean(settings.feed_source, known) or f"there is {', '.join(known)}"
        return failed(CHECK, f"there is no FEED_SOURCE={settings.feed_source}", remedy)
    try:
        feed = registry.create(settings.feed_source, settings.feed_options)
    except (FeedError, ValueError, KeyError) as error:
        return failed(CHECK, str(error))
    return check_feed(feed, settings)


def check_feed(feed: DataFeed, settings: Settings) -> list[Finding]:
    """The source has the subjects, the kind and the granularity that are wanted, and the key that it needs.

    Nobody is asked: of a source that cannot tell by itself, nothing is said.
    """
    try:
        if isinstance(feed, CheckingFeed):
            feed.check(settings.feed_subjects, settings.feed_kind, settings.feed_granularity)
    except FeedError as error:
        return failed(CHECK, str(error))
    if settings.feed_source == PYTH and not (settings.pyth_api_key.get_secret_value() or settings.pyth_hermes_url):
        message = "PYTH_API_KEY is not set, and Hermes has required a key since 2026-08-26"
        return failed(CHECK, message, "set it, or FEED_SOURCE to another source")
    wanted = f"{settings.feed_granularity} {settings.feed_kind} records of {', '.join(settings.feed_subjects)}"
    return fine(CHECK, f"{settings.feed_source}: {wanted}")
