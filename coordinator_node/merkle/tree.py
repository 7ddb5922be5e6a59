"""A Merkle tree after RFC 9162, section 2.1: SHA-256, 0x00 before a leaf, 0x01 before a pair, no leaf doubled.

The prefixes keep a pair from passing for a leaf. A last node without a sibling moves up as it is, which gives the
RFC's split at the largest power of two. Hashes are lower-case hexadecimal text of 64 digits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import batched

LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass
class MerkleNode:
    """A node; `hash` of a leaf is its `leaf_hash`, so already prefixed.

    `level` is 0 for a leaf and one more than its left child's for a pair; `position` counts from 0 within the level.
    Only leaves made of snapshots have a `snapshot_id` and a `snapshot_content_hash`.
    """

    hash: str
    level: int
    position: int
    left: MerkleNode | None = field(default=None, repr=False)
    right: MerkleNode | None = field(default=None, repr=False)
    snapshot_id: str | None = None
    snapshot_content_hash: str | None = None


@dataclass
class ProofStep:
    """One step from a leaf up: the sibling's hash, and the side, 'left' or 'right', on which the sibling stands."""

    hash: str
    position: str


@dataclass
class MerkleProof:
    """The way from one snapshot to the root of its cycle and, once there is one, of its checkpoint."""

    snapshot_id: str
    snapshot_content_hash: str
    cycle_id: str | None = None
    cycle_root: str | None = None
    checkpoint_id: str | None = None
    merkle_root: str | None = None
    path: list[ProofStep] = field(default_factory=list)


def leaf_hash(content: bytes) -> str:
    """SHA-256 of 0x00 and the content. The content of a snapshot's leaf is its content hash as 32 bytes."""
    return hashlib.sha256(LEAF_PREFIX + content).hexdigest()


def node_hash(left: str, right: str) -> str:
    """SHA-256 of 0x01 and the two children's hashes as bytes."""
    return hashlib.sha256(NODE_PREFIX + bytes.fromhex(left) + bytes.fromhex(right)).hexdigest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over nodes that are hashed already, as `build_merkle_tree` gives it, but without keeping the tree.

    The root of no nodes is the hash of nothing, as in RFC 9162.
    """
    if not hashes:
        return hashlib.sha256().digest()
    row = list(hashes)
    while len(row) > 1:
        row = _row_above(row)
    return row[0]


def rows_over(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """The same tree with all its rows, from the given nodes up to the root; `path_in` finds paths in them.

    An odd one at a row's end is in the row above as well, and so on, until it has a sibling.
    """
    rows = [list(hashes)]
    while len(rows[-1]) > 1:
        rows.append(_row_above(rows[-1]))
    return rows


def path_in(rows: Sequence[Sequence[bytes]], index: int) -> list[ProofStep]:
    """The siblings of a leaf on its way to the root, as `generate_proof` gives them, from `rows_over` its tree."""
    steps = []
    for row in rows[:-1]:
        sibling = index ^ 1
        if sibling < len(row):
            steps.append(ProofStep(row[sibling].hex(), "left" if sibling < index else "right"))
        index //= 2
    return steps


def snapshot_leaf(snapshot_id: str, content_hash: str, position: int = 0) -> MerkleNode:
    """The leaf of a snapshot whose `canonical_snapshot_hash` is `content_hash`.

    Raises:
        ValueError: `content_hash` is not 64 lower-case hexadecimal digits.
    """
    _require_hash(content_hash, f"content hash of snapshot {snapshot_id}")
    hashed = leaf_hash(bytes.fromhex(content_hash))
    return MerkleNode(hashed, 0, position, snapshot_id=snapshot_id, snapshot_content_hash=content_hash)


def build_merkle_tree(leaves: list[MerkleNode]) -> list[MerkleNode]:
    """Every node of the tree over `leaves`, level by level, so the root last; [] for no leaves.

    The leaves come back as copies whose level and position follow from their place in the list. A node that moved up
    without a sibling is in the result once, at its own level.

    Raises:
        ValueError: a leaf's hash is not 64 lower-case hexadecimal digits.
    """
    for index, leaf in enumerate(leaves):
        _require_hash(leaf.hash, f"hash of leaf {index}")
    row = [
        MerkleNode(leaf.hash, 0, index, None, None, leaf.snapshot_id, leaf.snapshot_content_hash)
        for index, leaf in enumerate(leaves)
    ]
    nodes = list(row)
    level = 0
    while len(row) > 1:
        level += 1
        row = [_parent(pair, level, position) for position, pair in enumerate(batched(row, 2))]
        nodes += [node for node in row if node.level == level]
    return nodes


def get_root(nodes: list[MerkleNode]) -> MerkleNode | None:
    """The root of one tree's nodes, in whatever order; None for no nodes.

    Raises:
        ValueError: several nodes stand on the highest level, so this is not one whole tree.
    """
    if not nodes:
        return None
    height = max(node.level for node in nodes)
    top = [node for node in nodes if node.level == height]
    if len(top) > 1:
        raise ValueError(f"{len(top)} nodes stand on the highest level {height}: these are not the nodes of one tree")
    return top[0]


def generate_proof(nodes: list[MerkleNode], leaf_hash: str) -> list[ProofStep]:
    """The siblings of `leaf_hash` on its way to the root, from the bottom up; [] in a tree of one leaf.

    Args:
        nodes: all nodes of one tree, in whatever order. Only hash, level and position are read, so rows of a database
            will do. Of several leaves with the same hash, the first is proven.
        leaf_hash: a leaf's `hash`, prefixed; not the content's.

    Raises:
        ValueError: no leaf has this hash, or nodes are missing.
    """
    placed = {(node.level, node.position): node for node in nodes}
    position = min((n.position for n in nodes if n.level == 0 and n.hash == leaf_hash), default=None)
    if position is None:
        raise ValueError(f"no leaf of this tree has the hash {leaf_hash}; ask for the leaf's hash, not its content's")
    leaves = sum(1 for node in nodes if node.level == 0)
    if len(placed) != 2 * leaves - 1:
        raise ValueError(
            f"a tree of {leaves} leaves has {2 * leaves - 1} nodes, got {len(placed)}: load the whole tree"
        )
    return [
        ProofStep(_placed_at(placed, level, place).hash, side)
        for level, place, side in sibling_places(position, leaves)
    ]


def sibling_places(position: int, leaves: int) -> list[tuple[int, int, str]]:
    """Where the siblings of a leaf stand on its way to the root: (level, position, side), from the bottom up.

    The level and position are those under which `build_merkle_tree` lists the node.
    """
    widths = _widths(leaves)
    places: list[tuple[int, int, str]] = []
    for level, width in enumerate(widths[:-1]):
        sibling = position ^ 1
        if sibling < width:
            places.append((*_place(widths, level, sibling), "left" if sibling < position else "right"))
        position //= 2
    return places


def verify_proof(leaf_hash: str, proof: list[ProofStep], expected_root: str) -> bool:
    """Whether the steps of `proof`, from the bottom up, lead from `leaf_hash` to `expected_root`.

    Compute `leaf_hash` from the content: a hash taken on trust proves nothing about the content. Anything malformed (a
    hash that is not 64 lower-case hexadecimal digits, a side that is neither 'left' nor 'right') is False.
    """
    hashes = [leaf_hash, expected_root, *(step.hash for step in proof)]
    if not all(_HASH.fullmatch(value) for value in hashes):
        return False
    reached = leaf_hash
    for step in proof:
        if step.position == "left":
            reached = node_hash(step.hash, reached)
        elif step.position == "right":
            reached = node_hash(reached, step.hash)
        else:
            return False
    return reached == expected_root


def _row_above(row: Sequence[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    # Without strict: an odd one is left over, and moves up.
    joined = [sha256(NODE_PREFIX + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]
    return [*joined, row[-1]] if len(row) % 2 else joined


def _parent(pair: Sequence[MerkleNode], level: int, position: int) -> MerkleNode:
    if len(pair) == 1:
        return pair[0]
    left, right = pair
    return MerkleNode(node_hash(left.hash, right.hash), level, position, left, right)


def _widths(leaves: int) -> list[int]:
    """How many nodes stand on each level, those that moved up included; the last is the root's 1."""
    widths = [leaves]
    while widths[-1] > 1:
        widths.append((widths[-1] + 1) // 2)
    return widths


def _place(widths: list[int], level: int, position: int) -> tuple[int, int]:
    """Where a node is listed; the last of a level may have moved up from the last place of a lower one."""
    while level > 0 and 2 * position + 1 == widths[level - 1]:
        level, position = level - 1, position * 2
    return level, position


def _placed_at(placed: dict[tuple[int, int], MerkleNode], level: int, position: int) -> MerkleNode:
    try:
        return placed[level, position]
    except KeyError:
        raise ValueError(f"the tree lacks its node at level {level}, position {position}") from None


def _require_hash(value: str, what: str) -> None:
    if not _HASH.fullmatch(value):
        raise ValueError(f"{what} must be 64 lower-case hexadecimal digits, got {value!r}")
