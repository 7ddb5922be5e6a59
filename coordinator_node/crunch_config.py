"""What an operator overrides to make a competition: types, schedules, scoring, aggregation, emission.

Subclass `CrunchConfig` in `config/crunch_config.py`, or make one instance of it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coordinator_node.entities.emission import FRAC_64_MULTIPLIER, default_build_emission, pct_to_frac64
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.prediction import (
    CruncherReward,
    EmissionCheckpoint,
    PredictionRecord,
    ProviderReward,
)
from coordinator_node.metrics import get_default_registry

__all__ = [
    "FRAC_64_MULTIPLIER",
    "Aggregation",
    "AggregationWindow",
    "CallMethodArg",
    "CallMethodConfig",
    "CrunchConfig",
    "CrunchContract",
    "CruncherReward",
    "EmissionCheckpoint",
    "EnsembleConfig",
    "GroundTruth",
    "InferenceInput",
    "InferenceOutput",
    "Meta",
    "PredictionScope",
    "ProviderReward",
    "RawInput",
    "ScheduledPrediction",
    "ScoreResult",
    "default_aggregate_snapshot",
    "default_build_emission",
    "default_compute_metrics",
    "default_resolve_ground_truth",
    "pct_to_frac64",
]


class Meta(BaseModel):
    """Free-form data about a model."""

    model_config = ConfigDict(extra="allow")


class RawInput(BaseModel):
    """What the feed gives: the shape that the input builder reads."""

    model_config = ConfigDict(extra="allow")


class GroundTruth(RawInput):
    """What really happened, as `resolve_ground_truth` returns it."""


class InferenceInput(RawInput):
    """What a model receives with every tick."""


class InferenceOutput(BaseModel):
    """What a model answers."""

    value: float = 0.0


class ScoreResult(BaseModel):
    """What a scoring function returns; further fields are kept. A result with success=False counts as failed."""

    model_config = ConfigDict(extra="allow")

    value: float = 0.0
    success: bool = True
    failed_reason: str | None = None


class PredictionScope(BaseModel):
    """What is predicted, where a schedule's own scope does not say it."""

    model_config = ConfigDict(extra="allow")

    subject: str = "BTC"
    step_seconds: int = 15


class CallMethodArg(BaseModel):
    """One argument of the model's method: taken from the scope by name, sent as STRING, INT, FLOAT or JSON."""

    name: str
    type: str = "STRING"

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        known = ("STRING", "INT", "FLOAT", "JSON")
        if value.upper() not in known:
            raise ValueError(f"argument type {value!r} is not one of {', '.join(known)}")
        return value.upper()


class CallMethodConfig(BaseModel):
    """The model's method that a due slot calls, with its arguments in order, and the one that takes new input."""

    method: str = "predict"
    tick_method: str = "tick"
    args: list[CallMethodArg] = [
        CallMethodArg(name="subject", type="STRING"),
        CallMethodArg(name="resolve_horizon_seconds", type="INT"),
        CallMethodArg(name="step_seconds", type="INT"),
    ]


class AggregationWindow(BaseModel):
    """A look-back from now, in hours."""

    model_config = ConfigDict(extra="forbid")

    hours: int = Field(gt=0)


class Aggregation(BaseModel):
    """How snapshots become a ranking: windows of means of `value_field`, and which of them ranks.

    `missing_score` is what a FAILED or ABSENT prediction counts as in the windows; None leaves them out. A model with
    fewer than `min_predictions` scored ones in the ranking window (in the longest one, where a metric ranks) is shown
    unranked at the bottom.
    """

    model_config = ConfigDict(extra="forbid")

    windows: dict[str, AggregationWindow] = {
        "score_recent": AggregationWindow(hours=24),
        "score_steady": AggregationWindow(hours=72),
        "score_anchor": AggregationWindow(hours=168),
    }
    value_field: str = "value"
    ranking_key: str = "score_recent"
    ranking_direction: str = "desc"
    missing_score: float | None = Field(default=None, allow_inf_nan=False)
    min_predictions: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _counts_in_a_window(self) -> Aggregation:
        if self.min_predictions and not self.windows:
            raise ValueError("min_predictions is counted in a window, and there are no windows")
        return self

    @field_validator("ranking_direction")
    @classmethod
    def _known_direction(cls, value: str) -> str:
        if value not in ("asc", "desc"):
            raise ValueError(f"ranking_direction {value!r} is neither 'asc' nor 'desc'")
        return value


class EnsembleConfig(BaseModel):
    """A virtual model made of the others' answers: `__ensemble_<name>__`.

    `strategy(model_metrics, predictions) -> {model_id: weight}`; None means inverse variance.
    `model_filter(model_id, metrics) -> bool` keeps members; None keeps all.
    """

    name: str
    strategy: Callable[..., Any] | None = None
    model_filter: Callable[..., Any] | None = None
    enabled: bool = True

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        # Without one, the virtual model's id would be that of a real model.
        if not (value and value.isprintable()):
            raise ValueError(f"an ensemble's name must be printable and not empty, got {value!r}")
        return value


class ScheduledPrediction(BaseModel):
    """A schedule: what is predicted, how often, and how far ahead.

    `meta.offset_seconds` shifts its grid, `meta.deadline_seconds` bounds how long an answer may take.
    """

    model_config = ConfigDict(extra="allow")

    scope_key: str
    scope: dict[str, Any] = {}
    prediction_interval_seconds: int = Field(default=60, ge=1)
    resolve_horizon_seconds: int = Field(default=0, ge=0)
    active: bool = True
    order: int = 0
    meta: dict[str, Any] = {}


def _first_priced(feed_records: Iterable[FeedRecord]) -> tuple[datetime, float] | None:
    """The time and the price of the first record that has one."""
    for record in feed_records:
        for name in ("close", "price"):
            value = record.values.get(name)
            if type(value) is float or (isinstance(value, int | float) and not isinstance(value, bool)):
                return record.ts_event, float(value)
    return None


def default_resolve_ground_truth(
    feed_records: list[FeedRecord], prediction: PredictionRecord | None = None
) -> dict[str, Any] | None:
    """The return from the first record's price to the last one's.

    Args:
        feed_records: the scope's subject only, in time order: the last record known at or before performed_at, then
            all known up to and including resolvable_at.
        prediction: one prediction of the scope; not used here.

    Returns:
        entry_price, resolved_price, profit (a fraction: 0.01 is 1 %), direction_up; None while there are fewer than
        two distinct records, or where the entry price is not positive.
    """
    first, last = _first_priced(feed_records), _first_priced(reversed(feed_records))
    if first is None or last is None or first[0] == last[0]:
        return None
    entry, resolved = first[1], last[1]
    if entry <= 0:
        return None
    return {
        "entry_price": entry,
        "resolved_price": resolved,
        "profit": (resolved - entry) / entry,
        "direction_up": resolved > entry,
    }


def default_aggregate_snapshot(score_results: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of every numeric field over the results that have it; {} for no results."""
    sums: dict[str, list[float]] = {}
    for result in score_results:
        for key, value in result.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                sums.setdefault(key, []).append(float(value))
    return {key: sum(values) / len(values) for key, values in sums.items()}


def default_compute_metrics(
    metrics: list[str], predictions: list[dict[str, Any]], scores: list[dict[str, Any]], context: Any
) -> dict[str, float]:
    """The named metrics from the default registry; those that are undefined are left out."""
    return get_default_registry().compute(metrics, predictions, scores, context)


class CrunchConfig(BaseModel):
    """One competition. Every field has a default that runs."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    meta_type: type[BaseModel] = Meta
    raw_input_type: type[BaseModel] = RawInput
    ground_truth_type: type[BaseModel] = GroundTruth
    input_type: type[BaseModel] = InferenceInput
    output_type: type[BaseModel] = InferenceOutput
    score_type: type[BaseModel] = ScoreResult
    scope: PredictionScope = Field(default_factory=PredictionScope)
    call_method: CallMethodConfig = Field(default_factory=CallMethodConfig)
    aggregation: Aggregation = Field(default_factory=Aggregation)
    scheduled_predictions: list[ScheduledPrediction] = Field(
        default_factory=lambda: [
            ScheduledPrediction(
                scope_key="BTC-60",
                scope={"subject": "BTC"},
                prediction_interval_seconds=15,
                resolve_horizon_seconds=60,
            )
        ]
    )
    metrics: list[str] = ["ic", "ic_sharpe", "hit_rate", "max_drawdown", "model_correlation"]
    metrics_window_hours: int = Field(default=168, gt=0)
    compute_metrics: Callable[..., Any] = default_compute_metrics
    ensembles: list[EnsembleConfig] = Field(default_factory=list)
    crunch_pubkey: str = ""
    compute_provider: str | None = None
    data_provider: str | None = None
    predict_service_class: type | None = None
    scoring_function: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None
    resolve_ground_truth: Callable[..., dict[str, Any] | None] = default_resolve_ground_truth
    aggregate_snapshot: Callable[[list[dict[str, Any]]], dict[str, Any]] = default_aggregate_snapshot
    build_emission: Callable[..., EmissionCheckpoint] = default_build_emission
    stateful_scoring: bool = False
    mode: Literal["realtime", "tournament"] = "realtime"

    @model_validator(mode="after")
    def _distinct_schedules(self) -> CrunchConfig:
        seen: set[tuple[str, int, int]] = set()
        for schedule in self.scheduled_predictions:
            key = (schedule.scope_key, schedule.prediction_interval_seconds, schedule.resolve_horizon_seconds)
            if key in seen:
                raise ValueError(
                    f"two schedules have the scope_key {key[0]!r}, interval {key[1]} s and horizon {key[2]} s: give"
                    " each a scope_key of its own, also where only their scope or meta.offset_seconds differ"
                )
            seen.add(key)
        return self

    @model_validator(mode="after")
    def _distinct_ensembles(self) -> CrunchConfig:
        names = [ensemble.name for ensemble in self.ensembles]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two ensembles have the name {twice!r}")
        return self


# The older name of the same class.
CrunchContract = CrunchConfig
