"""Pydantic shapes of what comes from and goes to the wire."""

from coordinator_node.schemas.payload_contracts import ScheduleEnvelope

__all__ = ["ScheduleEnvelope"]
