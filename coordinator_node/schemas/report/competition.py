"""The competition, its models and their leaderboard."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from coordinator_node.schemas.report.wire import JsonObject, Number, UtcTime


class Health(BaseModel):
    """The API and its database answer."""

    status: Literal["ok"] = "ok"


class Info(BaseModel):
    """Which competition this is."""

    crunch_id: str
    crunch_address: str = Field(description="On-chain address; empty where none is configured.")
    network: Literal["devnet", "mainnet-beta"]


class ModelEntry(BaseModel):
    """A submitted model."""

    model_id: str
    model_name: str
    cruncher_name: str
    cruncher_id: str
    deployment_id: str


class LeaderboardEntry(BaseModel):
    """One model of the newest leaderboard; every metric stands beside these fields too, by its own name."""

    model_config = ConfigDict(extra="allow")

    created_at: UtcTime = Field(description="When the leaderboard was made.")
    model_id: str
    rank: int | None = Field(description="From 1; null for what is not ranked: ensembles, and models without a value.")
    model_name: str | None
    cruncher_name: str | None
    username: str | None = Field(description="The same as cruncher_name.")
    status: Literal["active", "inactive"] = Field(description="Whether the model runs now.")
    score_metrics: JsonObject
    score_ranking: JsonObject = Field(description="key, value and direction (asc or desc) of what ranks.")
    score_recent: Number | None = Field(description="Null where there is no such window, or nothing in it.")
    score_steady: Number | None
    score_anchor: Number | None


RESERVED: frozenset[str] = frozenset({*LeaderboardEntry.model_fields, "score_success"})
"""Names that no metric may take at top level: the entry's own, and one that the web app reads as an alert."""

WINDOWS = ("score_recent", "score_steady", "score_anchor")
