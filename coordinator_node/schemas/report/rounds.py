"""Rounds of a tournament: what a client sends, and how far a round has come."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from coordinator_node.entities.tournament import RoundStatus
from coordinator_node.schemas.report.wire import JsonObject, UtcTime

MAX_ID_CHARACTERS = 200
MAX_FEATURES = 10_000
"""Most feature rows of one round; each is a prediction of every model."""


class RoundFeatures(BaseModel):
    """What every model is asked about: one prediction for each row."""

    features: list[JsonObject] = Field(
        description="One object of features for each row, 1 to 10,000 of them.", min_length=1, max_length=MAX_FEATURES
    )


class RoundTruth(BaseModel):
    """What really happened, matched to the feature rows by index."""

    ground_truth: list[JsonObject | None] | dict[str, Any] = Field(
        description="A list with one entry for each feature row, null where it is not known yet; an object by feature"
        ' index, {"0": {…}, "2": {…}}; or any other object, which is the truth of every row.'
    )


class Round(BaseModel):
    """How far a round has come. Of `expected` predictions (features times models) there are so many of each status."""

    round_id: str = Field(description="The round's id, as its client chose it.")
    status: RoundStatus = Field(
        description="QUEUED, CALLING (models are asked), CALLED (the ground truth is waited for), SCORING, SCORED."
    )
    created_at: UtcTime = Field(description="When it was asked for.")
    features: int = Field(description="How many feature rows.")
    models: int = Field(description="How many models are asked.")
    expected: int = Field(description="How many predictions there will be: features times models.")
    predictions: int = Field(description="Those there are: pending, scored, failed and absent ones.")
    pending: int = Field(description="How many wait for their score.")
    scored: int = Field(description="How many have their score.")
    failed: int = Field(description="How many failed, by their model or their score.")
    absent: int = Field(description="How many are of models that were away.")
    truths: int = Field(description="Of how many feature rows the ground truth is given.")
