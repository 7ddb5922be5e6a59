"""Scoring a closed period again."""

from __future__ import annotations

from coordinator_node.services.rescore.period import Period, RescoreError
from coordinator_node.services.rescore.service import RescoreReport, rescore

__all__ = ["Period", "RescoreError", "RescoreReport", "rescore"]
