"""Puts a cycle's snapshots, and all that they count, under one root that is chained to the cycle before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.db.copying import copy_rows
from coordinator_node.db.json_text import encode_json
from coordinator_node.db.tables import MerkleCycleRow
from coordinator_node.entities.ids import new_ids
from coordinator_node.entities.prediction import SnapshotRecord
from coordinator_node.merkle.documents import cycle_header, leaf, pair, sealed
from coordinator_node.merkle.tree import MerkleNode, build_merkle_tree
from coordinator_node.services.merkle.commitments import chain_commitments

_LAST = text(
    "SELECT id, position, chained_root FROM merkle_cycles WHERE position IS NOT NULL ORDER BY position DESC LIMIT 1"
)
_COUNTED_COLUMNS = ("snapshot_id", "predictions_root", "prediction_ids_jsonb", "leaves")
_NODE_COLUMNS = (
    "id",
    "checkpoint_id",
    "cycle_id",
    "level",
    "position",
    "hash",
    "left_child_id",
    "right_child_id",
    "snapshot_id",
    "snapshot_content_hash",
    "created_at",
)


@dataclass(frozen=True)
class Counted:
    """What one model's snapshot counts, in order: the ids; for each the two hashes, in one; and the root over these."""

    prediction_ids: list[str]
    leaves: bytes
    root: bytes


def write_cycle(
    session: Session,
    cycle_id: str,
    snapshots: Sequence[tuple[SnapshotRecord, str]],
    counted: Mapping[str, Counted],
    now: datetime,
) -> None:
    """Commit to a cycle; by the one leader, in the transaction that stores its snapshots.

    Args:
        session: its transaction; the snapshots' rows are in it already.
        cycle_id: the cycle's id.
        snapshots: the cycle's, each with its content hash, in the order of the tree.
        counted: what each counts, by model id.
        now: becomes created_at.
    """
    own = [counted[snapshot.model_id] for snapshot, _ in snapshots]
    leaves = [
        MerkleNode(
            hash=pair(leaf(bytes.fromhex(content_hash)), own[position].root).hex(),
            level=0,
            position=position,
            snapshot_id=snapshot.id,
            snapshot_content_hash=content_hash,
        )
        for position, (snapshot, content_hash) in enumerate(snapshots)
    ]
    nodes = build_merkle_tree(leaves)
    _store_cycle(session, cycle_id, nodes[-1].hash, len(snapshots), counted, now)
    copy_rows(
        session,
        "merkle_counted",
        _COUNTED_COLUMNS,
        (
            (snapshot.id, one.root.hex(), encode_json(one.prediction_ids), one.leaves)
            for (snapshot, _), one in zip(snapshots, own, strict=True)
        ),
    )
    store_nodes(session, nodes, now, cycle_id=cycle_id)


def store_nodes(
    session: Session,
    nodes: Sequence[MerkleNode],
    now: datetime,
    *,
    cycle_id: str | None = None,
    checkpoint_id: str | None = None,
) -> None:
    """Store a whole tree, a cycle's or a checkpoint's."""
    ids = new_ids(len(nodes))
    id_of = {id(node): node_id for node, node_id in zip(nodes, ids, strict=True)}
    rows = (
        (
            node_id,
            checkpoint_id,
            cycle_id,
            node.level,
            node.position,
            node.hash,
            id_of[id(node.left)] if node.left else None,
            id_of[id(node.right)] if node.right else None,
            node.snapshot_id,
            node.snapshot_content_hash,
            now,
        )
        for node, node_id in zip(nodes, ids, strict=True)
    )
    copy_rows(session, "merkle_nodes", _NODE_COLUMNS, rows)


def _store_cycle(
    session: Session,
    cycle_id: str,
    snapshots_root: str,
    snapshot_count: int,
    counted: Mapping[str, Counted],
    now: datetime,
) -> None:
    previous = session.connection().execute(_LAST).one_or_none()
    position = previous.position + 1 if previous else 1
    header = cycle_header(
        cycle_id,
        position,
        previous.id if previous else None,
        previous.chained_root if previous else None,
        chain_commitments(session),
        snapshot_count,
        sum(len(own.prediction_ids) for own in counted.values()),
        now,
    )
    row = MerkleCycleRow(
        id=cycle_id,
        snapshots_root=snapshots_root,
        chained_root=sealed(header, bytes.fromhex(snapshots_root)).hex(),
        created_at=now,
        **{name: header[name] for name in _IN_THE_ROW},
    )
    session.add(row)
    session.flush()


_IN_THE_ROW = (
    "position",
    "previous_cycle_id",
    "previous_cycle_root",
    "commitments_root",
    "snapshot_count",
    "prediction_count",
)
"""What a cycle's header and its row have in common by name."""
