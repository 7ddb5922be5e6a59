"""`coordinator-node doctor`: checks a workspace before it runs."""

from __future__ import annotations

from coordinator_node.cli.doctor.command import run_doctor

__all__ = ["run_doctor"]
