"""The score stage."""

from __future__ import annotations

from coordinator_node.services.score.service import ScoreStage

__all__ = ["ScoreStage"]
