"""The Merkle log and the evidence of a checkpoint."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from coordinator_node.schemas.report.wire import JsonObject, UtcTime


class PathStep(BaseModel):
    """A step of a path, from the bottom up: the sibling's hash, and the side on which it stands, left or right."""

    model_config = ConfigDict(from_attributes=True)

    hash: str = Field(description="The sibling's hash: 64 hexadecimal digits.")
    position: str = Field(description="left or right: on which side of the hash so far it stands.")


class MerkleCycle(BaseModel):
    """One score cycle's snapshots under one root, chained to the cycle before.

    `position` counts from 1; it, and what is null with it, is null for a cycle of version 0.1.84, which had no proofs.
    """

    id: str = Field(description="The cycle's id.")
    position: int | None = Field(description="Its place in the chain, from 1.")
    previous_cycle_id: str | None = Field(description="The cycle before; null for the first.")
    previous_cycle_root: str | None = Field(description="The chained_root of the cycle before; null for the first.")
    commitments_root: str | None = Field(description="The commitments' newest chained root at that time.")
    snapshots_root: str = Field(
        description="The root over its snapshots and all that they count: 64 hexadecimal digits."
    )
    chained_root: str = Field(description="The root over its header and snapshots_root, which the next cycle names.")
    snapshot_count: int = Field(description="How many snapshots it covers.")
    prediction_count: int | None = Field(description="How many predictions these count.")
    checkpoint_id: str | None = Field(description="The checkpoint that covers it; null before.")
    created_at: UtcTime = Field(description="When it was made.")


class MerkleCommitment(BaseModel):
    """A batch of predictions, committed before their outcomes; in the order of the chain."""

    id: str = Field(description="The commitment's id.")
    position: int = Field(description="Its place in the chain, from 1.")
    previous_root: str | None = Field(description="The chained_root of the commitment before; null for the first.")
    root: str = Field(description="The root over its predictions: 64 hexadecimal digits.")
    chained_root: str = Field(description="The root over its header and root, which the next commitment names.")
    prediction_count: int = Field(description="How many predictions it covers.")
    committed_at: UtcTime = Field(description="When they were committed, before any outcome was known.")


class CommitmentProof(BaseModel):
    """The path from a prediction's hash to the root that it was committed under."""

    commitment_id: str = Field(description="The commitment's id.")
    root: str = Field(description="Where the path leads: the root over the commitment's predictions.")
    committed_at: UtcTime = Field(description="When it was written.")
    path: list[PathStep] = Field(description="From the prediction's hash to root, from the bottom up.")


class MerkleProofAnswer(BaseModel):
    """The path from a snapshot, or from a prediction, to its cycle's root and on to its checkpoint's.

    `path` leads to `merkle_root`; to `cycle_root` while no checkpoint covers the cycle. It begins at the leaf hash of
    the snapshot's content hash, or at `prediction_hash`.
    """

    snapshot_id: str = Field(description="The snapshot asked for, or the one that counts the prediction.")
    snapshot_content_hash: str = Field(description="The hash of the snapshot's document: 64 hexadecimal digits.")
    cycle_id: str = Field(description="The cycle that covers it.")
    cycle_root: str = Field(description="That cycle's chained_root.")
    checkpoint_id: str | None = Field(description="The checkpoint that covers the cycle; null before.")
    merkle_root: str | None = Field(description="That checkpoint's root; null before.")
    path: list[PathStep] = Field(description="From the leaf to the root, from the bottom up.")
    prediction_id: str | None = Field(None, description="The prediction asked for; null where a snapshot was.")
    prediction_hash: str | None = Field(
        None,
        description="The hash of the prediction's document, where the path begins; null for a snapshot.",
    )
    commitment: CommitmentProof | None = Field(
        None, description="How it was committed before its outcome; null where it was not, and for a snapshot."
    )


class EvidencePrediction(BaseModel):
    """One prediction that a snapshot counts: its hashes in the log, and the rows that must give these hashes."""

    snapshot_id: str = Field(description="The snapshot that counts it.")
    index: int = Field(description="Its place among those of its snapshot.")
    prediction_id: str = Field(description="The prediction's id.")
    prediction_hash: str = Field(description="The hash of its document in the log.")
    outcome_hash: str = Field(description="The hash of its outcome in the log.")
    prediction: JsonObject | None = Field(description="Null where the row is gone.")
    score: JsonObject | None = Field(description="Null where no score is counted.")
    ground_truth: str | None = Field(description="Its key in ground_truths.")


class Evidence(BaseModel):
    """A page of all that is needed to recompute a checkpoint; `docs/verify` says how. `next` is the next cursor."""

    model_config = ConfigDict(from_attributes=True)

    checkpoint: JsonObject = Field(
        description="The checkpoint: its period, entries, meta with ranking and rules, merkle_root."
    )
    cycles: list[JsonObject] = Field(description="The cycles that this page shows, in the order of the chain.")
    snapshots: list[JsonObject] = Field(
        description="Snapshots of these cycles, in the order of their leaves; on the first pages those outside the log."
    )
    predictions: list[EvidencePrediction] = Field(
        description="The predictions that the snapshots count, in their order."
    )
    ground_truths: JsonObject = Field(
        description="What the predictions were scored against, by the key that they name."
    )
    commitments: list[JsonObject] = Field(
        description="The commitments of the predictions, in the order of their chain."
    )
    next: str | None = Field(description="The cursor of the next page; null on the last.")
