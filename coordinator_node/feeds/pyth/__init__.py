"""The Pyth source."""

from __future__ import annotations

from coordinator_node.feeds.pyth.source import PythFeed

__all__ = ["PythFeed"]
