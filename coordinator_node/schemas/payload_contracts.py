"""Shapes of JSON documents that rows hold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ScheduleEnvelope(BaseModel):
    """`scheduled_prediction_configs.schedule_jsonb`: how often to predict, and how far ahead, in seconds."""

    model_config = ConfigDict(extra="forbid")

    prediction_interval_seconds: int = Field(default=60, ge=1)
    resolve_horizon_seconds: int = Field(default=0, ge=0)
