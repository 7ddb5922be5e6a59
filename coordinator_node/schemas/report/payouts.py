"""Checkpoints, emissions and prizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from coordinator_node.entities.prediction import CheckpointStatus, RetainingEmission
from coordinator_node.schemas.report.wire import JsonObject, UtcTime

TransactionHash = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[\x21-\x7e]{1,200}$")]


class CheckpointPeriod(BaseModel):
    """What a checkpoint's emission and prizes belong to."""

    checkpoint_id: str
    status: CheckpointStatus
    period_start: UtcTime
    period_end: UtcTime


class Checkpoint(BaseModel):
    """One period's emission, with the ranking it was made from in `meta.ranking`."""

    id: str
    period_start: UtcTime
    period_end: UtcTime
    status: CheckpointStatus
    entries: list[JsonObject] = Field(description="One emission.")
    meta: JsonObject
    created_at: UtcTime
    tx_hash: str | None
    submitted_at: UtcTime | None
    merkle_root: str | None = Field(description="The root that covers all it was made from; see /reports/evidence.")


class CheckpointPayload(CheckpointPeriod):
    """What is to be sent to the chain, with the ranking that its indexes point into."""

    entries: list[JsonObject]
    meta: JsonObject


class CheckpointEmission(CheckpointPeriod):
    """The newest emission; shares are frac64, 1_000_000_000 is 100 %."""

    emission: RetainingEmission


class CliEmission(BaseModel):
    """An emission as the chain's command line takes it: percentages (0-100) by model and by provider's address."""

    crunch: str
    crunchEmission: dict[str, float]  # noqa: N815 - the command line's own spelling
    computeProvider: dict[str, float]  # noqa: N815 - the command line's own spelling
    dataProvider: dict[str, float]  # noqa: N815 - the command line's own spelling


class Prize(BaseModel):
    """One model's part of a pool."""

    prizeId: str = Field(description="<checkpoint>-<model>")  # noqa: N815 - the web app's own spelling
    timestamp: int = Field(description="Epoch seconds of the period's end.")
    model: str
    prize: int


class CheckpointPrizes(CheckpointPeriod):
    """A pool divided by a checkpoint's emission; the prizes sum to exactly total_prize."""

    total_prize: int
    prizes: list[Prize]


class Confirmation(BaseModel):
    """The transaction that put a checkpoint on the chain."""

    tx_hash: TransactionHash


class StatusChange(BaseModel):
    """Where a checkpoint goes: one step forward."""

    status: CheckpointStatus


class Reward(BaseModel):
    """One ranked model's part of one checkpoint; every number of its result stands beside these fields, by name."""

    model_config = ConfigDict(extra="allow")

    checkpoint_id: str
    period_start: UtcTime
    period_end: UtcTime
    model_id: str = Field(examples=["4711"])
    model_name: str | None
    rank: int | None = Field(description="From 1.")
    reward_pct: float = Field(description="0-100; all of a checkpoint's sum to 100.", examples=[35.0])
    prediction_count: int | None = Field(description="How many scored predictions it was over.")
