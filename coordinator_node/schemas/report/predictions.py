"""Predictions and snapshots."""

from __future__ import annotations

from pydantic import BaseModel, Field

from coordinator_node.schemas.report.wire import JsonObject, NaiveUtcTime, Number, UtcTime


class PredictionPoint(BaseModel):
    """One prediction, or one bucket of a long series; what differs within a bucket is null."""

    model_id: str
    prediction_config_id: str | None
    scope_key: str
    scope: JsonObject | None
    score_value: float | None = Field(description="Null while it is not scored and where it failed; a bucket's mean.")
    score_failed: bool | None = Field(description="True where the model failed, was absent, or its score failed.")
    score_failed_reason: str | None
    scored_at: UtcTime | None
    performed_at: NaiveUtcTime = Field(description="UTC without offset; a bucket's last prediction.")
    subject: str | None
    asset: str | None = Field(description="The same as subject.")
    horizon: Number | None = Field(description="Seconds from performed_at to the outcome.")
    param: str = Field(description="The same as scope_key.")
    step: Number | None = Field(description="Seconds.")


class SnapshotEntry(BaseModel):
    """One model over one period."""

    id: str
    model_id: str
    period_start: UtcTime
    period_end: UtcTime
    prediction_count: int
    result_summary: JsonObject
    created_at: UtcTime
