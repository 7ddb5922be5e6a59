"""The Binance source."""

from __future__ import annotations

from coordinator_node.feeds.binance.source import BinanceFeed

__all__ = ["BinanceFeed"]
