"""What can be told of a competition before it runs: the same checks for `doctor` and for the workers' start."""

from __future__ import annotations

from coordinator_node.services.checks.competition import Competition
from coordinator_node.services.checks.findings import Finding, Level
from coordinator_node.services.checks.startup import CHECKS, check_service, findings_of, warn_at_start
from coordinator_node.services.checks.variables import unknown_variables

__all__ = [
    "CHECKS",
    "Competition",
    "Finding",
    "Level",
    "check_service",
    "findings_of",
    "unknown_variables",
    "warn_at_start",
]
