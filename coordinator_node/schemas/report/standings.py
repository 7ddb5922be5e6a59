"""How models stood over time, what their snapshots held, and how much they differ from one another."""

from __future__ import annotations

from pydantic import BaseModel, Field

from coordinator_node.schemas.report.wire import AND_NUMBERS, JsonObject, NaiveUtcTime, Number, UtcTime


class ChartPoint(BaseModel):
    """What every chart can be filtered by; null where a row is about several subjects, horizons or scopes."""

    subject: str | None = Field(description="What is predicted.", examples=["BTC"])
    asset: str | None = Field(description="The same as subject.", examples=["BTC"])
    horizon: Number | None = Field(description="Seconds from a prediction to its outcome.", examples=[60])
    param: str | None = Field(description="The scope_key.", examples=["BTC-60"])
    step: Number | None = Field(description="Seconds.", examples=[15])


class Standing(ChartPoint):
    """How one model stood at one moment; every metric stands beside these fields too, by its own name."""

    model_config = AND_NUMBERS

    model_id: str = Field(description="The model's id.", examples=["4711"])
    performed_at: NaiveUtcTime = Field(description="UTC without offset: the moment as of which the windows are taken.")
    score_metrics: JsonObject = Field(
        description="The leaderboard's windows as of then, and the numbers of the model's latest snapshot; null where"
        " there is nothing in a window.",
        examples=[{"score_recent": 0.012, "score_steady": 0.01, "score_anchor": None, "ic": 0.04}],
    )
    score_ranking: JsonObject = Field(
        description="key, value and direction (asc or desc) of what ranks.",
        examples=[{"key": "score_recent", "value": 0.012, "direction": "desc"}],
    )


class ScopeStanding(Standing):
    """How one model stood in one scope: the windows over that scope's predictions alone."""

    scope_key: str = Field(description="The scope's name.", examples=["BTC-60"])
    scope: JsonObject | None = Field(
        description="What is predicted, by the schedule of this scope_key; null where there is none.",
        examples=[{"subject": "BTC", "step_seconds": 15, "resolve_horizon_seconds": 60}],
    )


class SnapshotPoint(ChartPoint):
    """One snapshot, or one bucket of a long series; every number stands beside these fields, by its own name.

    A bucket's numbers are means weighted by prediction_count.
    """

    model_config = AND_NUMBERS

    model_id: str = Field(description="The model's id.", examples=["4711"])
    performed_at: NaiveUtcTime = Field(description="UTC without offset: the same as period_end.")
    period_start: UtcTime = Field(description="The first moment of its period; of a bucket's first snapshot.")
    period_end: UtcTime = Field(description="The first moment after its period; of a bucket's last snapshot.")
    prediction_count: int = Field(description="How many scored predictions it is over.", examples=[4])


class ModelDiversity(BaseModel):
    """How much one model differs from the others, and what its owner may do about it."""

    model_id: str = Field(description="The model's id.", examples=["4711"])
    rank: int | None = Field(description="On the newest leaderboard, from 1; null where it is not ranked.")
    diversity_score: float | None = Field(
        ge=0, le=1, description="max(0, 1 - |model_correlation|); null while that is unknown.", examples=[0.7]
    )
    metrics: dict[str, float | None] = Field(
        description="ic, model_correlation, ensemble_correlation, contribution, fnc; null where undefined or not asked"
        " for by the competition.",
        examples=[
            {"ic": 0.04, "model_correlation": 0.3, "ensemble_correlation": 0.5, "contribution": None, "fnc": 0.2}
        ],
    )
    guidance: list[str] = Field(
        description="What the numbers mean for the model's owner, one sentence each.",
        examples=[["Your signal is mostly your own: keep it so."]],
    )
    snapshot_period_end: UtcTime | None = Field(description="Of the snapshot they come from; null before the first.")


class DiversityEntry(BaseModel):
    """One model's numbers of diversity; null where undefined or not asked for by the competition."""

    model_id: str = Field(description="The model's id.", examples=["4711"])
    diversity_score: float | None = Field(
        ge=0, le=1, description="max(0, 1 - |model_correlation|), from 0 (a copy) to 1.", examples=[0.7]
    )
    model_correlation: float | None = Field(description="Mean rank correlation with every other model, -1 to 1.")
    ensemble_correlation: float | None = Field(description="Rank correlation with the ensemble, -1 to 1.")
    contribution: float | None = Field(description="What the ensemble's IC gains by the model.")
    fnc: float | None = Field(description="IC of what is the model's own, orthogonal to the others' mean.")
    ic: float | None = Field(description="Rank correlation of signals and actual returns, -1 to 1.")
    period_end: UtcTime = Field(description="Of the snapshot they come from.")


class EnsembleSnapshot(BaseModel):
    """One snapshot of an ensemble; every number of it stands beside these fields, by its own name."""

    model_config = AND_NUMBERS

    ensemble_name: str = Field(description="As the config names it.", examples=["main"])
    model_id: str = Field(
        description="The virtual model that stands for it: __ensemble_<name>__.", examples=["__ensemble_main__"]
    )
    period_start: UtcTime = Field(description="The first moment of its period.")
    period_end: UtcTime = Field(description="The first moment after its period.")
    prediction_count: int = Field(description="How many scored predictions it is over.", examples=[4])


def reserved(row: type[BaseModel]) -> frozenset[str]:
    """Names that no metric may take at top level: the row's own, and one that the web app reads as an alert."""
    return frozenset({*row.model_fields, "score_success"})
