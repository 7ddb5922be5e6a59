"""Moves of BTC and ETH over a few seconds. Written for coordinator-node 0.1.84."""

from datetime import timedelta
from typing import Any, Callable, Optional

from pydantic import BaseModel, ConfigDict, Field

from coordinator_node.crunch_config import (
    Aggregation,
    AggregationWindow,
    CallMethodArg,
    CallMethodConfig,
    EnsembleConfig,
    GroundTruth,
    InferenceInput,
    InferenceOutput,
    Meta,
    PredictionScope,
    RawInput,
    ScheduledPrediction,
    ScoreResult,
)
from coordinator_node.crunch_config import CrunchConfig as BaseCrunchConfig
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.prediction import PredictionRecord
from coordinator_node.extensions.emission_strategies import contribution_weighted_emission
from coordinator_node.metrics import MetricsContext, get_default_registry
from coordinator_node.services.ensemble import equal_weight, inverse_variance, min_metric, top_n
from coordinator_node.services.realtime_predict import RealtimePredictService

# --- types ---


class MoveMeta(Meta):
    desk: str = "none"


class MarketData(RawInput):
    symbol: str = "BTC"
    asof_ts: int = 0
    candles_1m: list[dict[str, Any]] = Field(default_factory=list)


class MoveInput(InferenceInput):
    symbol: str
    asof_ts: int
    candles_1m: list[dict[str, Any]]
    last_price: Optional[float] = None


class MoveOutput(BaseModel):
    model_config = ConfigDict(extra="allow")

    expected_return: float
    confidence: float = Field(default=0.5, ge=0.0, le=1.0)


class MoveTruth(GroundTruth):
    entry_price: float
    exit_price: float
    actual_return: float
    high: float
    low: float


class MoveScore(ScoreResult):
    value: float = 0.0
    actual_return: float = 0.0
    squared_error: float = 0.0


class MoveScope(PredictionScope):
    subject: str = "BTC"
    step_seconds: int = 1


# --- ground truth ---


def resolve_move(feed_records: list[FeedRecord], prediction: PredictionRecord | None = None) -> dict[str, Any] | None:
    """The move between the first and the last price, with the highest and the lowest between them."""
    prices = [float(r.values.get("close", r.values.get("price", 0.0))) for r in feed_records]
    if len(prices) < 2:
        return None
    if prediction is not None and prediction.resolvable_at is not None:
        if feed_records[-1].ts_event < prediction.performed_at - timedelta(minutes=5):
            return None
    return {
        "entry_price": prices[0],
        "exit_price": prices[-1],
        "actual_return": prices[-1] / prices[0] - 1.0,
        "high": max(prices),
        "low": min(prices),
        "records": len(prices),
    }


# --- metrics ---


def conviction(predictions: list[dict[str, Any]], scores: list[dict[str, Any]], context: MetricsContext) -> float:
    """The mean confidence, of what was said in the window."""
    said = [
        p["inference_output"]["confidence"] for p in predictions if p["performed_at"] >= context.window_start
    ]
    return sum(said) / max(len(said), 1)


def mean_squared_error(predictions, scores, context) -> float:
    assert len(predictions) == len(scores)
    return float(sum(s["result"]["squared_error"] for s in scores) / max(len(scores), 1))


def crowd_size(predictions, scores, context) -> float:
    return float(len(context.all_model_predictions))


registry = get_default_registry()
registry.register("conviction", conviction)
registry.register("mean_squared_error", mean_squared_error)
registry.register("crowd_size", crowd_size)


# --- ensembles ---


def by_conviction(
    model_metrics: dict[str, dict[str, float]], predictions: dict[str, list[dict[str, Any]]]
) -> dict[str, float]:
    weights = {model_id: model_metrics.get(model_id, {}).get("conviction", 0.0) for model_id in predictions}
    return weights if any(weights.values()) else equal_weight(model_metrics, predictions)


# --- the competition ---


class CrunchConfig(BaseCrunchConfig):
    """The competition price-moves."""

    meta_type: type[BaseModel] = MoveMeta
    raw_input_type: type[BaseModel] = MarketData
    input_type: type[BaseModel] = MoveInput
    output_type: type[BaseModel] = MoveOutput
    ground_truth_type: type[BaseModel] = MoveTruth
    score_type: type[BaseModel] = MoveScore
    scope: PredictionScope = Field(default_factory=MoveScope)
    call_method: CallMethodConfig = Field(
        default_factory=lambda: CallMethodConfig(
            method="predict",
            args=[
                CallMethodArg(name="subject", type="STRING"),
                CallMethodArg(name="resolve_horizon_seconds", type="INT"),
                CallMethodArg(name="step_seconds", type="INT"),
            ],
        )
    )
    aggregation: Aggregation = Field(
        default_factory=lambda: Aggregation(
            windows={
                "score_recent": AggregationWindow(hours=1),
                "score_steady": AggregationWindow(hours=24),
            },
            value_field="value",
            ranking_key="score_recent",
            ranking_direction="desc",
        )
    )
    scheduled_predictions: list[ScheduledPrediction] = Field(
        default_factory=lambda: [
            ScheduledPrediction(
                scope_key="BTC-2",
                scope={"subject": "BTC"},
                prediction_interval_seconds=1,
                resolve_horizon_seconds=2,
                active=True,
                order=0,
            ),
            ScheduledPrediction(
                scope_key="ETH-3",
                scope={"subject": "ETH", "step_seconds": 3, "venue": "anywhere"},
                prediction_interval_seconds=2,
                resolve_horizon_seconds=3,
                active=True,
                order=1,
                meta={"note": "the slower one"},
            ),
            ScheduledPrediction(
                scope_key="BTC-3600",
                scope={"subject": "BTC"},
                prediction_interval_seconds=3600,
                resolve_horizon_seconds=3600,
                active=False,
                order=2,
            ),
        ]
    )
    metrics: list[str] = [
        "ic",
        "ic_sharpe",
        "hit_rate",
        "mean_return",
        "max_drawdown",
        "sortino_ratio",
        "turnover",
        "model_correlation",
        "ensemble_correlation",
        "contribution",
        "fnc",
        "conviction",
        "mean_squared_error",
        "crowd_size",
    ]
    ensembles: list[EnsembleConfig] = [
        EnsembleConfig(name="main", strategy=inverse_variance, model_filter=top_n(2)),
        EnsembleConfig(name="sure", strategy=by_conviction, model_filter=min_metric("conviction", 0.3)),
        EnsembleConfig(name="resting", strategy=equal_weight, enabled=False),
    ]
    resolve_ground_truth: Callable = resolve_move
    build_emission: Callable = contribution_weighted_emission
    compute_provider: str | None = "compute-provider-address"
    data_provider: str | None = "data-provider-address"
    predict_service_class: type | None = RealtimePredictService
