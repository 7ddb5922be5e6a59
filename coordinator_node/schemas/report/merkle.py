"""The Merkle log and the evidence of a checkpoint."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from coordinator_node.schemas.report.wire import JsonObject, UtcTime


class PathStep(BaseModel):
    """A step of a path, from the bottom up: the sibling's hash, and the side on which it stands, left or right."""

    model_config = ConfigDict(from_attributes=True)

    hash: str
    position: str


class MerkleCycle(BaseModel):
    """One score cycle's snapshots under one root, chained to the cycle before.

    `position` counts from 1; it, and what is null with it, is null for a cycle of version 0.1.84, which had no proofs.
    """

    id: str
    position: int | None
    previous_cycle_id: str | None
    previous_cycle_root: str | None
    commitments_root: str | None = Field(description="The commitments' newest chained root at that time.")
    snapshots_root: str
    chained_root: str
    snapshot_count: int
    prediction_count: int | None
    checkpoint_id: str | None
    created_at: UtcTime


class MerkleCommitment(BaseModel):
    """A batch of predictions, committed before their outcomes; in the order of the chain."""

    id: str
    position: int
    previous_root: str | None
    root: str
    chained_root: str
    prediction_count: int
    committed_at: UtcTime


class CommitmentProof(BaseModel):
    """The path from a prediction's hash to the root that it was committed under."""

    commitment_id: str
    root: str
    committed_at: UtcTime
    path: list[PathStep]


class MerkleProofAnswer(BaseModel):
    """The path from a snapshot, or from a prediction, to its cycle's root and on to its checkpoint's.

    `path` leads to `merkle_root`; to `cycle_root` while no checkpoint covers the cycle. It begins at the leaf hash of
    the snapshot's content hash, or at `prediction_hash`.
    """

    snapshot_id: str
    snapshot_content_hash: str
    cycle_id: str
    cycle_root: str
    checkpoint_id: str | None
    merkle_root: str | None
    path: list[PathStep]
    prediction_id: str | None = None
    prediction_hash: str | None = None
    commitment: CommitmentProof | None = None


class EvidencePrediction(BaseModel):
    """One prediction that a snapshot counts: its hashes in the log, and the rows that must give these hashes."""

    snapshot_id: str
    index: int = Field(description="Its place among those of its snapshot.")
    prediction_id: str
    prediction_hash: str
    outcome_hash: str
    prediction: JsonObject | None = Field(description="Null where the row is gone.")
    score: JsonObject | None = Field(description="Null where no score is counted.")
    ground_truth: str | None = Field(description="Its key in ground_truths.")


class Evidence(BaseModel):
    """A page of all that is needed to recompute a checkpoint; `docs/verify` says how. `next` is the next cursor."""

    model_config = ConfigDict(from_attributes=True)

    checkpoint: JsonObject
    cycles: list[JsonObject]
    snapshots: list[JsonObject]
    predictions: list[EvidencePrediction]
    ground_truths: JsonObject
    commitments: list[JsonObject]
    next: str | None
