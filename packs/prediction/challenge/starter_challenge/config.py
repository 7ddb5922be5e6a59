"""What the competition asks, when, and how it scores: the same for the live node and for backtests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from coordinator_node.crunch_config import CrunchConfig as BaseConfig
from coordinator_node.crunch_config import InferenceOutput, ScheduledPrediction
from starter_challenge.scoring import score_prediction

SUBJECTS = ("BTC", "ETH")
INTERVAL_SECONDS = 5
HORIZON_SECONDS = 15


class ExpectedReturn(InferenceOutput):
    """A model's answer: the return until the horizon, in basis points."""

    value: float = Field(ge=-1_000, le=1_000)


class CrunchConfig(BaseConfig):
    """The competition's own choices; all else is the engine's default."""

    output_type: type[ExpectedReturn] = ExpectedReturn
    scoring_function: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = score_prediction
    scheduled_predictions: list[ScheduledPrediction] = [
        ScheduledPrediction(
            scope_key=f"{subject}-{HORIZON_SECONDS}",
            scope={"subject": subject, "step_seconds": INTERVAL_SECONDS},
            prediction_interval_seconds=INTERVAL_SECONDS,
            resolve_horizon_seconds=HORIZON_SECONDS,
            order=order,
        )
        for order, subject in enumerate(SUBJECTS)
    ]
