"""What the competition asks, when, and how it scores: the same for the live node and for backtests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from coordinator_node.crunch_config import CrunchConfig as BaseConfig
from coordinator_node.crunch_config import ScheduledPrediction, default_resolve_ground_truth
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.prediction import PredictionRecord
from starter_challenge.scoring import score_prediction

SUBJECTS = ("BTC", "ETH")
# A position is held until the next call.
INTERVAL_SECONDS = HORIZON_SECONDS = 10


class Position(BaseModel):
    """A model's answer: the position that it wants, from -1 (sold) over 0 (none) to 1 (bought)."""

    model_config = ConfigDict(extra="ignore")

    signal: float = Field(ge=-1, le=1)


def resolve_ground_truth(
    feed_records: list[FeedRecord], prediction: PredictionRecord | None = None
) -> dict[str, Any] | None:
    """The engine's own truth, and which subject it is about: positions are kept for each."""
    truth = default_resolve_ground_truth(feed_records, prediction)
    return None if truth is None else {**truth, "subject": feed_records[0].subject}


class CrunchConfig(BaseConfig):
    """The competition's own choices; all else is the engine's default."""

    output_type: type[BaseModel] = Position
    resolve_ground_truth: Callable[..., dict[str, Any] | None] = resolve_ground_truth
    scoring_function: Callable[..., dict[str, Any]] | None = score_prediction
    stateful_scoring: bool = True
    metrics: list[str] = ["ic", "hit_rate", "mean_return", "max_drawdown", "sortino_ratio", "turnover"]
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
