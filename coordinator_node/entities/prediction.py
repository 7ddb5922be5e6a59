"""Inputs, predictions, scores, snapshots and checkpoints, with the statuses that a row may have."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypedDict

from pydantic import Field

from coordinator_node.entities.times import utc_now


class InputStatus(StrEnum):
    """RECEIVED until the ground truth of its scope is stored with it."""

    RECEIVED = "RECEIVED"
    RESOLVED = "RESOLVED"


class PredictionStatus(StrEnum):
    """PENDING waits for its outcome; the score worker moves it on. FAILED and ABSENT may also be a row's first."""

    PENDING = "PENDING"
    SCORED = "SCORED"
    FAILED = "FAILED"
    ABSENT = "ABSENT"


class SlotStatus(StrEnum):
    """Whether the models were asked in a due moment of a schedule; set once, by whoever writes the slot's row."""

    CALLED = "CALLED"
    MISSED = "MISSED"


class SnapshotState(StrEnum):
    """Whether a score is counted in a snapshot; the snapshot stage moves PENDING to COUNTED."""

    PENDING = "PENDING"
    COUNTED = "COUNTED"


class CheckpointStatus(StrEnum):
    """A payout's way: made, sent to the chain, claimable there, paid."""

    PENDING = "PENDING"
    SUBMITTED = "SUBMITTED"
    CLAIMABLE = "CLAIMABLE"
    PAID = "PAID"


class BackfillStatus(StrEnum):
    """A history job's way; the leader that runs it moves it."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


PREDICTION_MOVES: dict[PredictionStatus, frozenset[PredictionStatus]] = {
    PredictionStatus.PENDING: frozenset({PredictionStatus.SCORED, PredictionStatus.FAILED}),
    PredictionStatus.SCORED: frozenset(),
    PredictionStatus.FAILED: frozenset(),
    PredictionStatus.ABSENT: frozenset(),
}

CHECKPOINT_MOVES: dict[CheckpointStatus, frozenset[CheckpointStatus]] = {
    CheckpointStatus.PENDING: frozenset({CheckpointStatus.SUBMITTED}),
    CheckpointStatus.SUBMITTED: frozenset({CheckpointStatus.CLAIMABLE}),
    CheckpointStatus.CLAIMABLE: frozenset({CheckpointStatus.PAID}),
    CheckpointStatus.PAID: frozenset(),
}

BACKFILL_MOVES: dict[BackfillStatus, frozenset[BackfillStatus]] = {
    BackfillStatus.PENDING: frozenset({BackfillStatus.RUNNING, BackfillStatus.FAILED}),
    BackfillStatus.RUNNING: frozenset({BackfillStatus.COMPLETED, BackfillStatus.FAILED}),
    BackfillStatus.COMPLETED: frozenset(),
    BackfillStatus.FAILED: frozenset(),
}


@dataclass
class InputRecord:
    """What the models were given at one moment."""

    id: str
    raw_data: dict[str, Any] = field(default_factory=dict)
    received_at: datetime = field(default_factory=utc_now)


@dataclass
class PredictionRecord:
    """What one model said for one scope at one moment.

    `exec_time_ms` is the call's duration in milliseconds. `performed_at` is the slot's time, `resolvable_at` that plus
    the horizon; None where a custom service does not know it yet.
    """

    id: str
    input_id: str
    model_id: str
    prediction_config_id: str | None
    scope_key: str
    scope: dict[str, Any]
    status: PredictionStatus
    exec_time_ms: float
    inference_output: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    performed_at: datetime = field(default_factory=utc_now)
    resolvable_at: datetime | None = None


@dataclass
class ScoreRecord:
    """What a prediction was worth, as the scoring function said."""

    id: str
    prediction_id: str
    result: dict[str, Any] = field(default_factory=dict)
    success: bool = True
    failed_reason: str | None = None
    scored_at: datetime = field(default_factory=utc_now)

    @property
    def value(self) -> Any:
        """The result's `value`; None where it has none."""
        return self.result.get("value")


@dataclass
class ScoredPrediction(PredictionRecord):
    """A prediction with its score; None while it has none."""

    score: ScoreRecord | None = None


@dataclass
class SnapshotRecord:
    """One model over one period."""

    id: str
    model_id: str
    period_start: datetime
    period_end: datetime
    prediction_count: int = 0
    result_summary: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utc_now)


class CruncherReward(TypedDict):
    """A model's share: an index into the checkpoint's ranking, and frac64 (1_000_000_000 is 100 %)."""

    cruncher_index: Annotated[int, Field(description="The model's place in the checkpoint's meta.ranking, from 0.")]
    reward_pct: Annotated[int, Field(description="Its share in frac64: 1_000_000_000 is 100 %.")]


class ProviderReward(TypedDict):
    """A provider's share: its address, and frac64 (1_000_000_000 is 100 %)."""

    provider: Annotated[str, Field(description="The provider's on-chain address.")]
    reward_pct: Annotated[int, Field(description="Its share in frac64: 1_000_000_000 is 100 %.")]


class EmissionCheckpoint(TypedDict):
    """The reward shares of one checkpoint; each non-empty list sums to exactly 1_000_000_000."""

    crunch: Annotated[str, Field(description="The competition's on-chain address; empty where none is configured.")]
    cruncher_rewards: Annotated[list[CruncherReward], Field(description="The models' shares; empty where none ranks.")]
    compute_provider_rewards: Annotated[list[ProviderReward], Field(description="Empty where none is configured.")]
    data_provider_rewards: Annotated[list[ProviderReward], Field(description="Empty where none is configured.")]


class RetainingEmission(EmissionCheckpoint, total=False):
    """An emission that may hold part of the pool back: `retained_pct` in frac64, nothing where it is not there.

    The list of rewards divides what is paid out, which is the rest of the pool.
    """

    retained_pct: Annotated[int, Field(description="The part of the pool that is not paid out, in frac64.")]


@dataclass
class CheckpointRecord:
    """One period's ranking turned into an emission; `entries` holds one emission."""

    id: str
    period_start: datetime
    period_end: datetime
    status: CheckpointStatus = CheckpointStatus.PENDING
    entries: list[EmissionCheckpoint] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utc_now)
    tx_hash: str | None = None
    submitted_at: datetime | None = None
