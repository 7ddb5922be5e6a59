"""Predictions and snapshots."""

from __future__ import annotations

from pydantic import BaseModel, Field

from coordinator_node.schemas.report.wire import JsonObject, NaiveUtcTime, Number, UtcTime


class PredictionPoint(BaseModel):
    """One prediction, or one bucket of a long series; what differs within a bucket is null."""

    model_id: str = Field(description="The model's id.")
    prediction_config_id: str | None = Field(
        description="The schedule that it was asked for by; null where there was none."
    )
    scope_key: str = Field(description="The scope's name.")
    scope: JsonObject | None = Field(
        description="subject, step_seconds and what else the schedule says; null where a bucket's differ."
    )
    score_value: float | None = Field(description="Null while it is not scored and where it failed; a bucket's mean.")
    score_failed: bool | None = Field(description="True where the model failed, was absent, or its score failed.")
    score_failed_reason: str | None = Field(description="Why; null where it did not fail, and where a bucket's differ.")
    scored_at: UtcTime | None = Field(description="When it was scored; null before, and for a bucket.")
    performed_at: NaiveUtcTime = Field(description="UTC without offset; a bucket's last prediction.")
    subject: str | None = Field(description="What is predicted; null where the scope does not say.")
    asset: str | None = Field(description="The same as subject.")
    horizon: Number | None = Field(description="Seconds from performed_at to the outcome.")
    param: str = Field(description="The same as scope_key.")
    step: Number | None = Field(description="Seconds.")


class SnapshotEntry(BaseModel):
    """One model over one period."""

    id: str = Field(description="The snapshot's id.")
    model_id: str = Field(description="The model's id.")
    period_start: UtcTime = Field(description="The first moment of its period.")
    period_end: UtcTime = Field(description="The first moment after its period.")
    prediction_count: int = Field(description="How many scored predictions it is over.")
    result_summary: JsonObject = Field(
        description="Means of the scores' numbers and the metrics, by name; null where one is undefined."
    )
    created_at: UtcTime = Field(description="When it was made.")
