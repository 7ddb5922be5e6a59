"""Checkpoints, emissions and prizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from coordinator_node.entities.prediction import CheckpointStatus, RetainingEmission
from coordinator_node.schemas.report.wire import AND_NUMBERS, JsonObject, UtcTime

TransactionHash = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[\x21-\x7e]{1,200}$")]
EMISSION = {
    "crunch": "crunch-address",
    "cruncher_rewards": [
        {"cruncher_index": 0, "reward_pct": 650_000_000},
        {"cruncher_index": 1, "reward_pct": 350_000_000},
    ],
    "compute_provider_rewards": [],
    "data_provider_rewards": [],
}


class CheckpointPeriod(BaseModel):
    """What a checkpoint's emission and prizes belong to."""

    checkpoint_id: str = Field(description="The checkpoint's id.", examples=["ckpt-1"])
    status: CheckpointStatus = Field(description="From PENDING one step at a time to PAID.", examples=["PENDING"])
    period_start: UtcTime = Field(description="The first moment of the period.")
    period_end: UtcTime = Field(description="The first moment after the period.")


class Checkpoint(BaseModel):
    """One period's emission, with the ranking it was made from in `meta.ranking`."""

    id: str = Field(description="The checkpoint's id.", examples=["ckpt-1"])
    period_start: UtcTime = Field(description="The first moment of the period.")
    period_end: UtcTime = Field(description="The first moment after the period.")
    status: CheckpointStatus = Field(description="From PENDING one step at a time to PAID.", examples=["PENDING"])
    entries: list[JsonObject] = Field(
        description="One emission; reward_pct is frac64, 1_000_000_000 is 100 %.", examples=[[EMISSION]]
    )
    meta: JsonObject = Field(description="ranking: the models by rank, with the numbers that they are paid by.")
    created_at: UtcTime = Field(description="When it was made.")
    tx_hash: str | None = Field(description="The transaction that put it on the chain; null before.")
    submitted_at: UtcTime | None = Field(description="When tx_hash was confirmed; null before.")
    merkle_root: str | None = Field(description="The root that covers all it was made from; see /reports/evidence.")


class CheckpointPayload(CheckpointPeriod):
    """What is to be sent to the chain, with the ranking that its indexes point into."""

    entries: list[JsonObject] = Field(
        description="One emission; reward_pct is frac64, 1_000_000_000 is 100 %.", examples=[[EMISSION]]
    )
    meta: JsonObject = Field(description="ranking: the models by rank, which cruncher_index counts along, from 0.")


class CheckpointEmission(CheckpointPeriod):
    """The newest emission; shares are frac64, 1_000_000_000 is 100 %."""

    emission: RetainingEmission = Field(description="The reward shares.")


class CliEmission(BaseModel):
    """An emission as the chain's command line takes it: percentages (0-100) by model and by provider's address."""

    crunch: str = Field(description="On-chain address of the competition; empty where none is configured.")
    crunchEmission: dict[str, float] = Field(  # noqa: N815 - the command line's own spelling
        description="Sums to 100.", examples=[{"4711": 65.0, "4712": 35.0}]
    )
    computeProvider: dict[str, float] = Field(  # noqa: N815 - the command line's own spelling
        description="Percent (0-100) by address; sums to 100, empty where there is none."
    )
    dataProvider: dict[str, float] = Field(  # noqa: N815 - the command line's own spelling
        description="Percent (0-100) by address; sums to 100, empty where there is none."
    )


class Prize(BaseModel):
    """One model's part of a pool."""

    prizeId: str = Field(  # noqa: N815 - the web app's own spelling
        description="<checkpoint>-<model>", examples=["ckpt-1-4711"]
    )
    timestamp: int = Field(description="Epoch seconds of the period's end.", examples=[1769817600])
    model: str = Field(description="The model's id.", examples=["4711"])
    prize: int = Field(description="In the unit of total_prize.", examples=[650])


class CheckpointPrizes(CheckpointPeriod):
    """A pool divided by a checkpoint's emission; the prizes sum to exactly total_prize."""

    total_prize: int = Field(description="The pool, in its smallest unit.", examples=[1000])
    prizes: list[Prize] = Field(description="In rank order.")


class Confirmation(BaseModel):
    """The transaction that put a checkpoint on the chain."""

    tx_hash: TransactionHash = Field(
        description="The transaction's hash: 1 to 200 characters without spaces.",
        examples=["5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnb"],
    )


class StatusChange(BaseModel):
    """Where a checkpoint goes: one step forward."""

    status: CheckpointStatus = Field(
        description="The next after the present one, of PENDING, SUBMITTED, CLAIMABLE, PAID.", examples=["CLAIMABLE"]
    )


class Reward(BaseModel):
    """One ranked model's part of one checkpoint; every number of its result stands beside these fields, by name."""

    model_config = AND_NUMBERS

    checkpoint_id: str = Field(description="The checkpoint's id.")
    period_start: UtcTime = Field(description="The first moment of the period.")
    period_end: UtcTime = Field(description="The first moment after the period.")
    model_id: str = Field(description="The model's id.", examples=["4711"])
    model_name: str | None = Field(description="Its name then; null where it had none.")
    rank: int | None = Field(description="From 1.")
    reward_pct: float = Field(description="0-100; all of a checkpoint's sum to 100.", examples=[35.0])
    prediction_count: int | None = Field(description="How many scored predictions it was over.")
