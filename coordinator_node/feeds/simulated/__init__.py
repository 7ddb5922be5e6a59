"""The simulated source: realistic prices made from a seed."""

from __future__ import annotations

from coordinator_node.feeds.simulated.source import SimulatedFeed

__all__ = ["SimulatedFeed"]
