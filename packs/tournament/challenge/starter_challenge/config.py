"""What the competition asks and how it scores: the same for the live node and for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from coordinator_node.crunch_config import (
    CallMethodArg,
    CallMethodConfig,
    GroundTruth,
    InferenceOutput,
    PredictionScope,
    ScheduledPrediction,
)
from coordinator_node.crunch_config import CrunchConfig as BaseConfig
from starter_challenge.scoring import score_prediction


class Target(GroundTruth):
    """What a row's target turned out to be."""

    target: float


class Estimate(InferenceOutput):
    """A model's answer: the target that it expects."""

    value: float = Field(ge=-1_000, le=1_000)


class CrunchConfig(BaseConfig):
    """The competition's own choices; all else is the engine's default."""

    mode: Literal["realtime", "tournament"] = "tournament"
    scope: PredictionScope = PredictionScope(subject="rows")
    scheduled_predictions: list[ScheduledPrediction] = []
    call_method: CallMethodConfig = CallMethodConfig(args=[CallMethodArg(name="features", type="JSON")])
    ground_truth_type: type[Target] = Target
    output_type: type[Estimate] = Estimate
    scoring_function: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = score_prediction
