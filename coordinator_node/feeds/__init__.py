"""Where records come from: the verbs of a source, the sources by name, and the check at the engine's boundary."""

from __future__ import annotations

from coordinator_node.feeds.base import DataFeed, FeedHandle, FeedSink
from coordinator_node.feeds.contracts import (
    FeedDataKind,
    FeedDataRecord,
    FeedFetchRequest,
    FeedSubscription,
    SubjectDescriptor,
)
from coordinator_node.feeds.registry import DataFeedRegistry, FeedFactory, FeedSettings, create_default_registry

__all__ = [
    "DataFeed",
    "DataFeedRegistry",
    "FeedDataKind",
    "FeedDataRecord",
    "FeedFactory",
    "FeedFetchRequest",
    "FeedHandle",
    "FeedSettings",
    "FeedSink",
    "FeedSubscription",
    "SubjectDescriptor",
    "create_default_registry",
]
