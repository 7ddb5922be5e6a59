"""The Merkle log: its cycles and commitments, and the paths that lead to a checkpoint's root."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import batched
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from sqlalchemy import Connection, Select, func, select, text, tuple_
from sqlmodel import col

from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.db.tables import MerkleCommitmentRow, MerkleCycleRow, MerkleNodeRow
from coordinator_node.merkle.canonical import canonical_bytes
from coordinator_node.merkle.documents import checkpoint_header, cycle_header, leaf
from coordinator_node.merkle.tree import ProofStep, path_in, rows_over, sibling_places

HASH_BYTES = 32
# Positions of the chain count from 1.
NO_POSITION = 0
# No larger than its column can hold.
Position = Annotated[int, Field(ge=0, le=2**62)]

_SNAPSHOT = text(
    """
    SELECT node.snapshot_id, node.snapshot_content_hash, node.position AS leaf_position, node.cycle_id,
           counted.predictions_root, counted.prediction_ids_jsonb AS prediction_ids, counted.leaves
    FROM merkle_nodes AS node JOIN merkle_cycles AS cycle ON cycle.id = node.cycle_id AND cycle.position IS NOT NULL
    JOIN merkle_counted AS counted ON counted.snapshot_id = node.snapshot_id
    WHERE node.snapshot_id = :snapshot_id AND node.level = 0
    """
)
_COUNTING = text(
    """
    SELECT snapshot_id FROM scores WHERE prediction_id = :id AND snapshot_id IS NOT NULL
    UNION ALL SELECT snapshot_id FROM predictions WHERE id = :id AND snapshot_id IS NOT NULL
    """
)
_CHECKPOINT = text(
    """
    SELECT checkpoint.id, checkpoint.period_start, checkpoint.period_end, checkpoint.created_at,
           checkpoint.entries_jsonb, checkpoint.meta_jsonb, checkpoint.merkle_root, (
               SELECT count(*) FROM merkle_cycles AS cycle
               WHERE cycle.checkpoint_id = checkpoint.id AND cycle.position < :position) AS leaf_position
    FROM checkpoints AS checkpoint WHERE checkpoint.id = :id
    """
)
_COMMITTED = text(
    """
    SELECT prediction.commitment_index, commitment.id, commitment.root, commitment.leaves, commitment.committed_at
    FROM predictions AS prediction JOIN merkle_commitments AS commitment ON commitment.id = prediction.commitment_id
    WHERE prediction.id = :id
    """
)


class CyclePlace(NamedTuple):
    """Where a cycle stands in the order, newest first; one without a position behind others of its moment."""

    created_at: datetime
    position: Position
    id: str

    @classmethod
    def of(cls, row: Record) -> CyclePlace:
        """The place of a row."""
        return cls(row["created_at"], row["position"] or NO_POSITION, row["id"])


class CommitmentPlace(NamedTuple):
    """Where a commitment stands in its chain."""

    position: Position

    @classmethod
    def of(cls, row: Record) -> CommitmentPlace:
        """The place of a row."""
        return cls(row["position"])


def cycles(
    connection: Connection,
    *,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    after: CyclePlace | None = None,
) -> list[Record]:
    """The newest cycles made from `since` to `until`, both included, those behind `after`; those of 0.1.84 too."""
    row = MerkleCycleRow
    place = (col(row.created_at), func.coalesce(col(row.position), NO_POSITION), col(row.id))
    newest = _cycles().order_by(*(part.desc() for part in place))
    if after is not None:
        newest = newest.where(tuple_(*place) < tuple_(*after))
    if since is not None:
        newest = newest.where(col(row.created_at) >= since)
    if until is not None:
        newest = newest.where(col(row.created_at) <= until)
    return fetch(connection, newest.limit(limit))


def cycle_by_id(connection: Connection, cycle_id: str) -> Record | None:
    """One cycle; None where there is none of that id."""
    found = fetch(connection, _cycles().where(col(MerkleCycleRow.id) == cycle_id))
    return found[0] if found else None


def commitments(connection: Connection, *, after: int, limit: int) -> list[Record]:
    """The chained commitments behind a position of the chain, in its order."""
    row = MerkleCommitmentRow
    return fetch(connection, _commitments().where(col(row.position) > after).order_by(col(row.position)).limit(limit))


def commitments_by_id(connection: Connection, ids: Sequence[str]) -> list[Record]:
    """These commitments, in the order of the chain, with their `leaves`."""
    row = MerkleCommitmentRow
    named = _commitments().add_columns(col(row.leaves)).where(col(row.id).in_(ids))
    return fetch(connection, named.order_by(col(row.position), col(row.id)))


def rows_over_stored(leaves: bytes) -> list[list[bytes]]:
    """The rows of the tree over leaves that are stored one behind the other, for `path_in`."""
    return rows_over([bytes(part) for part in batched(leaves, HASH_BYTES)])


def snapshot_proof(connection: Connection, snapshot_id: str) -> Record | None:
    """The path from a snapshot's leaf to its cycle's chained root, and on to its checkpoint's; None if not in the log.

    It begins with the leaf of the content hash, `tree.leaf_hash` of its 32 bytes.
    """
    found = fetch(connection, _SNAPSHOT, {"snapshot_id": snapshot_id})
    if not found:
        return None
    snapshot = found[0]
    return _proof(connection, snapshot, [ProofStep(snapshot["predictions_root"], "right")])


def prediction_proof(connection: Connection, prediction_id: str) -> Record | None:
    """The path from a prediction's leaf to the same roots; None while no snapshot of the log counts it.

    `commitment` has the path to the root that it was committed under before its outcome; None where it was not.
    """
    for counting in fetch(connection, _COUNTING, {"id": prediction_id}):
        found = fetch(connection, _SNAPSHOT, {"snapshot_id": counting["snapshot_id"]})
        if not found or prediction_id not in found[0]["prediction_ids"]:
            continue
        snapshot = found[0]
        index = 2 * snapshot["prediction_ids"].index(prediction_id)
        own = bytes(snapshot["leaves"][HASH_BYTES * index : HASH_BYTES * (index + 1)]).hex()
        first = path_in(rows_over_stored(snapshot["leaves"]), index)
        content = leaf(bytes.fromhex(snapshot["snapshot_content_hash"])).hex()
        proof = _proof(connection, snapshot, [*first, ProofStep(content, "left")])
        committed = fetch(connection, _COMMITTED, {"id": prediction_id})
        return {
            **proof,
            "prediction_id": prediction_id,
            "prediction_hash": own,
            "commitment": _commitment_proof(committed[0]) if committed else None,
        }
    return None


def cycle_leaf(cycle: Record) -> str:
    """The leaf of a cycle's header."""
    header = cycle_header(
        cycle["id"],
        cycle["position"],
        cycle["previous_cycle_id"],
        cycle["previous_cycle_root"],
        cycle["commitments_root"],
        cycle["snapshot_count"],
        cycle["prediction_count"],
        cycle["created_at"],
    )
    return leaf(canonical_bytes(header)).hex()


def _proof(connection: Connection, snapshot: Record, first: list[ProofStep]) -> Record:
    cycle = cycle_by_id(connection, snapshot["cycle_id"]) or {}
    places = sibling_places(snapshot["leaf_position"], cycle["snapshot_count"])
    within = _nodes(connection, col(MerkleNodeRow.cycle_id) == cycle["id"], places)
    path = [*first, *within, ProofStep(cycle_leaf(cycle), "left")]
    proof: Record = {
        "snapshot_id": snapshot["snapshot_id"],
        "snapshot_content_hash": snapshot["snapshot_content_hash"],
        "cycle_id": cycle["id"],
        "cycle_root": cycle["chained_root"],
        "checkpoint_id": None,
        "merkle_root": None,
        "path": path,
    }
    if cycle["checkpoint_id"] is None:
        return proof
    values = {"id": cycle["checkpoint_id"], "position": cycle["position"]}
    [checkpoint] = fetch(connection, _CHECKPOINT, values)
    header = checkpoint_header(
        checkpoint["id"],
        checkpoint["period_start"],
        checkpoint["period_end"],
        checkpoint["created_at"],
        checkpoint["entries_jsonb"],
        checkpoint["meta_jsonb"],
    )
    places = sibling_places(checkpoint["leaf_position"], checkpoint["meta_jsonb"]["merkle"]["cycle_count"])
    among = _nodes(connection, col(MerkleNodeRow.checkpoint_id) == checkpoint["id"], places)
    path += [*among, ProofStep(leaf(canonical_bytes(header)).hex(), "left")]
    return {**proof, "checkpoint_id": checkpoint["id"], "merkle_root": checkpoint["merkle_root"]}


def _nodes(connection: Connection, tree: Any, places: Sequence[tuple[int, int, str]]) -> list[ProofStep]:
    """The nodes at these places of one tree, as steps of a path."""
    row = MerkleNodeRow
    wanted = [(level, position) for level, position, _ in places]
    query = select(col(row.level), col(row.position), col(row.hash)).where(
        tree, tuple_(col(row.level), col(row.position)).in_(wanted)
    )
    found = {(node.level, node.position): node.hash for node in connection.execute(query)}
    return [ProofStep(found[level, position], side) for level, position, side in places]


def _commitment_proof(committed: Record) -> Record:
    return {
        "commitment_id": committed["id"],
        "root": committed["root"],
        "committed_at": committed["committed_at"],
        "path": path_in(rows_over_stored(committed["leaves"]), committed["commitment_index"]),
    }


def _cycles() -> Select[*tuple[Any, ...]]:
    row = MerkleCycleRow
    return select(
        col(row.id),
        col(row.position),
        col(row.previous_cycle_id),
        col(row.previous_cycle_root),
        col(row.commitments_root),
        col(row.snapshots_root),
        col(row.chained_root),
        col(row.snapshot_count),
        col(row.prediction_count),
        col(row.checkpoint_id),
        col(row.created_at),
    )


def _commitments() -> Select[*tuple[Any, ...]]:
    row = MerkleCommitmentRow
    return select(
        col(row.id),
        col(row.position),
        col(row.previous_root),
        col(row.root),
        col(row.chained_root),
        col(row.prediction_count),
        col(row.committed_at),
    )
