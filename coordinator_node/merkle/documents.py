"""What the log's leaves are hashes of: one document for each thing that it covers, each with its version.

    prediction   what a model said, as it was before its outcome was known
    outcome      what became of it: its score and the ground truth, or why it has none
    headers      of a commitment, a cycle and a checkpoint: all that is to be known of it besides what it covers

A *sealed* root is the pair of a header's leaf and the root of what the header belongs to, so that neither can change
alone. Paths from a prediction or a snapshot go through these pairs like through any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from json.encoder import encode_basestring as quoted
from typing import Any

from coordinator_node.merkle.canonical import canonical_bytes, canonical_json, time_text
from coordinator_node.merkle.tree import LEAF_PREFIX, NODE_PREFIX, root_of

PREDICTION_VERSION = 1
OUTCOME_VERSION = 1
LOG_VERSION = 1
"""Of the headers, and of how what they belong to is put together."""


def leaf(content: bytes) -> bytes:
    """The hash of a leaf's content, as bytes; see `tree.leaf_hash`."""
    return hashlib.sha256(LEAF_PREFIX + content).digest()


def pair(left: bytes, right: bytes) -> bytes:
    """The hash of two nodes' pair, as bytes; see `tree.node_hash`."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


def sealed(header: Mapping[str, Any], root: bytes) -> bytes:
    """The root of a header and of what it belongs to: the header's leaf is on the left."""
    return pair(leaf(canonical_bytes(header)), root)


def prediction_leaf(row: Mapping[str, Any]) -> bytes:
    """The leaf of a prediction, from the columns of its row.

    Raises:
        ValueError: it holds what has no canonical text; see `canonical_bytes`.
    """
    document = {
        "version": PREDICTION_VERSION,
        "id": row["id"],
        "input_id": row["input_id"],
        "model_id": row["model_id"],
        "scope_key": row["scope_key"],
        "scope": row["scope_jsonb"],
        "output": row["inference_output_jsonb"],
        "performed_at": row["performed_at"],
        "resolvable_at": row["resolvable_at"],
    }
    return leaf(canonical_bytes(document))


def outcome_leaf(
    prediction_id: str,
    status: str,
    failed_reason: str | None,
    result: Mapping[str, Any] | None,
    ground_truth_hash: str | None,
    scored_at: str | None,
) -> bytes:
    """The leaf of what became of a prediction.

    Args:
        prediction_id: whose outcome it is.
        status: SCORED, FAILED or ABSENT.
        failed_reason: why it has no score that counts; None where nothing is said.
        result: the score's; None for a prediction without a score.
        ground_truth_hash: the `canonical_hash` of what it was scored against; None where there is none.
        scored_at: as `time_text`; None for a prediction without a score.

    Raises:
        ValueError: the result holds what has no canonical text.
    """
    # The canonical text of the object of these keys, put together by hand: there is one for every score.
    document = (
        f'{{"failed_reason":{_text(failed_reason)},"ground_truth_hash":{_text(ground_truth_hash)},'
        f'"prediction_id":{quoted(prediction_id)},"result":{canonical_json(result)},"scored_at":{_text(scored_at)},'
        f'"status":{quoted(status)},"version":{OUTCOME_VERSION}}}'
    )
    return leaf(document.encode())


def predictions_root(leaves: Sequence[bytes]) -> bytes:
    """The root of what one snapshot counts: for each prediction in order its own leaf, then its outcome's."""
    return root_of(leaves)


def commitment_header(
    commitment_id: str, position: int, previous_root: str | None, prediction_count: int, committed_at: datetime
) -> dict[str, Any]:
    """What is sealed with the root over a batch of predictions."""
    return {
        "version": LOG_VERSION,
        "kind": "commitment",
        "id": commitment_id,
        "position": position,
        "previous_root": previous_root,
        "prediction_count": prediction_count,
        "committed_at": time_text(committed_at),
    }


def cycle_header(
    cycle_id: str,
    position: int,
    previous_cycle_id: str | None,
    previous_cycle_root: str | None,
    commitments_root: str | None,
    snapshot_count: int,
    prediction_count: int,
    created_at: datetime,
) -> dict[str, Any]:
    """What is sealed with the root over a cycle's snapshots.

    `commitments_root` is the newest sealed root of the commitments at that time, which all before it lead to.
    """
    return {
        "version": LOG_VERSION,
        "kind": "cycle",
        "id": cycle_id,
        "position": position,
        "previous_cycle_id": previous_cycle_id,
        "previous_cycle_root": previous_cycle_root,
        "commitments_root": commitments_root,
        "snapshot_count": snapshot_count,
        "prediction_count": prediction_count,
        "created_at": time_text(created_at),
    }


def checkpoint_header(
    checkpoint_id: str,
    period_start: datetime,
    period_end: datetime,
    created_at: datetime,
    entries: Sequence[Mapping[str, Any]],
    meta: Mapping[str, Any],
) -> dict[str, Any]:
    """What is sealed with the root over a checkpoint's cycles: its period, its emission, and all of its meta.

    `meta.merkle` is covered but for its `root`, which is what comes out.
    """
    merkle = {name: value for name, value in meta.get("merkle", {}).items() if name != "root"}
    return {
        "version": LOG_VERSION,
        "kind": "checkpoint",
        "id": checkpoint_id,
        "period_start": time_text(period_start),
        "period_end": time_text(period_end),
        "created_at": time_text(created_at),
        "entries": list(entries),
        "meta": {**meta, "merkle": merkle},
    }


def _text(value: str | None) -> str:
    return "null" if value is None else quoted(value)
