"""The snapshot stage."""

from __future__ import annotations

from coordinator_node.services.snapshot.stage import LEASE_NAME, SnapshotStage

__all__ = ["LEASE_NAME", "SnapshotStage"]
