"""What the competition asks, when, and how it scores: the same for the live node and for backtests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, model_validator

from coordinator_node.crunch_config import CrunchConfig as BaseConfig
from coordinator_node.crunch_config import InferenceOutput, ScheduledPrediction
from starter_challenge.scoring import LEVELS, score_prediction

SUBJECTS = ("BTC", "ETH")
INTERVAL_SECONDS = 5
HORIZON_SECONDS = 15


class Quantiles(InferenceOutput):
    """A model's answer: quantiles of the return until the horizon, in basis points; `value` is the median."""

    q05: float = Field(ge=-1_000, le=1_000)
    q25: float = Field(ge=-1_000, le=1_000)
    value: float = Field(ge=-1_000, le=1_000)
    q75: float = Field(ge=-1_000, le=1_000)
    q95: float = Field(ge=-1_000, le=1_000)

    @model_validator(mode="after")
    def _in_order(self) -> Quantiles:
        quantiles = [getattr(self, field) for field in LEVELS]
        if quantiles != sorted(quantiles):
            raise ValueError("the quantiles must not fall: q05 <= q25 <= value <= q75 <= q95")
        return self


class CrunchConfig(BaseConfig):
    """The competition's own choices; all else is the engine's default."""

    output_type: type[Quantiles] = Quantiles
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
