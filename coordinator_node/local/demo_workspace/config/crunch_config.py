"""The demo competition: the direction of each subject's return, a few seconds ahead."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic import Field

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig as BaseConfig
from coordinator_node.crunch_config import InferenceOutput, ScheduledPrediction
from coordinator_node.services.feed_scope import FeedScope

INTERVAL_SECONDS = 3
HORIZON_SECONDS = 10


class Signal(InferenceOutput):
    """Direction and conviction, from -1 to 1."""

    value: float = Field(ge=-1, le=1)


def score(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """Basis points earned by standing `value` large over the horizon."""
    actual_return = ground_truth["profit"]
    return {"value": prediction["value"] * actual_return * 10_000, "actual_return": actual_return}


def schedules() -> list[ScheduledPrediction]:
    """One schedule a subject; slower where the feed's records are further apart than a second."""
    settings = load_settings()
    spacing = FeedScope.from_settings(settings).spacing
    interval = max(INTERVAL_SECONDS, math.ceil(spacing))
    horizon = max(HORIZON_SECONDS, math.ceil(spacing * 3))
    return [
        ScheduledPrediction(
            scope_key=f"{subject}-{horizon}",
            scope={"subject": subject, "step_seconds": interval},
            prediction_interval_seconds=interval,
            resolve_horizon_seconds=horizon,
            order=order,
        )
        for order, subject in enumerate(settings.feed_subjects)
    ]


class CrunchConfig(BaseConfig):
    """What the demo overrides."""

    output_type: type[Signal] = Signal
    scheduled_predictions: list[ScheduledPrediction] = Field(default_factory=schedules)
    scoring_function: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = score
    crunch_pubkey: str = "demo-crunch"
    compute_provider: str | None = "demo-compute-provider"
    data_provider: str | None = "demo-data-provider"
