"""The competition, its models and their leaderboard."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from coordinator_node.schemas.report.wire import AND_NUMBERS, JsonObject, Number, UtcTime


class Health(BaseModel):
    """The API and its database answer."""

    status: Literal["ok"] = Field("ok", description="Always ok; 503 says otherwise.")


class Info(BaseModel):
    """Which competition this is."""

    crunch_id: str = Field(description="The competition's id, CRUNCH_ID.", examples=["starter-challenge"])
    crunch_address: str = Field(description="On-chain address; empty where none is configured.")
    network: Literal["devnet", "mainnet-beta"] = Field(description="The chain that rewards are paid on, NETWORK.")


class ModelEntry(BaseModel):
    """A submitted model."""

    model_id: str = Field(description="The model's id, the same for every version of it.", examples=["4711"])
    model_name: str = Field(description="As its cruncher named it.", examples=["steady-trend"])
    cruncher_name: str = Field(description="Whoever submitted it.", examples=["alice"])
    cruncher_id: str = Field(description="The cruncher's id.", examples=["42"])
    deployment_id: str = Field(description="Differs each time that a model is submitted anew.", examples=["4711-3"])


class LeaderboardEntry(BaseModel):
    """One model of the newest leaderboard; every metric stands beside these fields too, by its own name."""

    model_config = AND_NUMBERS

    created_at: UtcTime = Field(description="When the leaderboard was made.")
    model_id: str = Field(description="The model's id.", examples=["4711"])
    rank: int | None = Field(
        description="From 1; null for what is not ranked: ensembles, and models without a value.", examples=[1]
    )
    model_name: str | None = Field(
        description="As its cruncher named it; null where that is not known.", examples=["steady-trend"]
    )
    cruncher_name: str | None = Field(description="Whoever submitted it.", examples=["alice"])
    username: str | None = Field(description="The same as cruncher_name.", examples=["alice"])
    status: Literal["active", "inactive"] = Field(description="Whether the model runs now.")
    score_metrics: JsonObject = Field(
        description="Every window's mean and every measure, by name; null where it is undefined.",
        examples=[{"score_recent": 0.012, "score_steady": 0.01, "score_anchor": None, "ic": 0.04}],
    )
    score_ranking: JsonObject = Field(
        description="key, value and direction (asc or desc) of what ranks.",
        examples=[{"key": "score_recent", "value": 0.012, "direction": "desc"}],
    )
    score_recent: Number | None = Field(
        description="Null where there is no such window, or nothing in it.", examples=[0.012]
    )
    score_steady: Number | None = Field(description="Likewise.", examples=[0.01])
    score_anchor: Number | None = Field(description="Likewise.", examples=[None])


RESERVED: frozenset[str] = frozenset({*LeaderboardEntry.model_fields, "score_success"})
"""Names that no metric may take at top level: the entry's own, and one that the web app reads as an alert."""

WINDOWS = ("score_recent", "score_steady", "score_anchor")
