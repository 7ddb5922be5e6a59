"""What `GET /reports/events` sends."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from coordinator_node.entities.prediction import CheckpointStatus
from coordinator_node.schemas.report.health import FeedHealth
from coordinator_node.schemas.report.wire import UtcTime


class LeaderboardEvent(BaseModel):
    """A new leaderboard can be read."""

    id: str = Field(description="The leaderboard's id.")
    created_at: UtcTime = Field(description="When it was made.")


class CheckpointEvent(BaseModel):
    """A checkpoint was made, or took a step."""

    id: str = Field(description="The checkpoint's id.")
    status: CheckpointStatus = Field(description="From PENDING one step at a time to PAID.")
    period_start: UtcTime = Field(description="The first moment of the period.")
    period_end: UtcTime = Field(description="The first moment after the period.")
    tx_hash: str | None = Field(description="The transaction that put it on the chain; null before.")


class FeedEvent(FeedHealth):
    """A feed has come further, fell behind, or caught up."""


EventName = Literal["leaderboard", "checkpoint", "feed"]
EventData = LeaderboardEvent | CheckpointEvent | FeedEvent
