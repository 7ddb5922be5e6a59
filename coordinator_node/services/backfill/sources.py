"""The sources that backfill jobs ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from coordinator_node.config.settings import Settings
from coordinator_node.feeds import DataFeed, create_default_registry


def source_maker(settings: Settings, live: DataFeed | None = None) -> Callable[[str], DataFeed]:
    """Gives the source of a name, made when it is first asked for; raises FeedError if it cannot be made.

    The settings' own source gets their options, another one has its defaults. `live` is the settings' source where it
    is made already: it is used as it is, because a venue counts the requests of both together.
    """

    @cache
    def make(source: str) -> DataFeed:
        if source != settings.feed_source:
            return create_default_registry().create(source)
        return live or create_default_registry().create(source, settings.feed_options)

    return make
