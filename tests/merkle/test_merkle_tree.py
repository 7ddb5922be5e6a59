"""The tree against RFC 9162's own recursion, and proofs: those that hold and, mostly, those that must not."""

import hashlib
import random

import pytest

from coordinator_node.merkle import build_merkle_tree, generate_proof, get_root, verify_proof
from coordinator_node.merkle.tree import (
    MerkleNode,
    MerkleProof,
    ProofStep,
    leaf_hash,
    path_in,
    root_of,
    rows_over,
    snapshot_leaf,
)

SIZES = range(1, 131)


def contents(size):
    return [f"leaf {index}".encode() for index in range(size)]


def tree_of(size):
    return build_merkle_tree([MerkleNode(leaf_hash(content), 0, index) for index, content in enumerate(contents(size))])


def naive_root(leaves):
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_path(index, leaves):
    """PATH of RFC 9162, section 2.1.3.1, word for word."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*naive_path(index, leaves[:split]), naive_root(leaves[split:])]
    return [*naive_path(index - split, leaves[split:]), naive_root(leaves[:split])]


@pytest.mark.parametrize("size", SIZES)
def test_root_and_every_proof_agree_with_the_rfc(size):
    nodes = tree_of(size)
    root = get_root(nodes).hash
    assert root == naive_root(contents(size)).hex()
    hashes = [bytes.fromhex(node.hash) for node in nodes[:size]]
    assert root == root_of(hashes).hex()
    rows = rows_over(hashes)
    assert [root] == [node.hex() for node in rows[-1]]
    for index, content in enumerate(contents(size)):
        proof = generate_proof(nodes, leaf_hash(content))
        assert [step.hash for step in proof] == [sibling.hex() for sibling in naive_path(index, contents(size))]
        assert path_in(rows, index) == proof
        assert verify_proof(leaf_hash(content), proof, root)


@pytest.mark.parametrize(
    ("leaves", "root"),
    [
        # The vectors of the Certificate Transparency reference implementation, trees of 1 to 4 of its leaves.
        ([""], "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (["", "00"], "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (["", "00", "10"], "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (["", "00", "10", "2021"], "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    ],
)
def test_known_roots(leaves, root):
    nodes = build_merkle_tree([MerkleNode(leaf_hash(bytes.fromhex(leaf)), 0, i) for i, leaf in enumerate(leaves)])
    assert get_root(nodes).hash == root


@pytest.mark.parametrize("size", SIZES)
def test_nodes_are_each_listed_once_at_a_place_of_their_own(size):
    nodes = tree_of(size)
    assert len(nodes) == 2 * size - 1
    assert len({(node.level, node.position) for node in nodes}) == len(nodes)
    assert [node.position for node in nodes if node.level == 0] == list(range(size))
    for node in nodes[size:]:
        assert node.left in nodes
        assert node.right in nodes
        assert node.level > max(node.left.level, node.right.level)


def test_no_leaves():
    assert build_merkle_tree([]) == []
    assert get_root([]) is None
    assert root_of([]) == hashlib.sha256(b"").digest()


def test_one_leaf_is_its_own_root():
    nodes = tree_of(1)
    assert get_root(nodes) is nodes[0]
    assert generate_proof(nodes, nodes[0].hash) == []
    assert verify_proof(nodes[0].hash, [], nodes[0].hash)


def test_an_odd_leaf_is_not_doubled():
    three, four = contents(3), [*contents(3), contents(3)[2]]
    roots = [
        get_root(build_merkle_tree([MerkleNode(leaf_hash(c), 0, 0) for c in c_list])).hash for c_list in (three, four)
    ]
    assert roots[0] != roots[1]


def test_places_follow_from_the_list_and_the_callers_leaves_stay_as_they_were():
    leaves = [snapshot_leaf(f"s{index}", f"{index:064x}", position=7) for index in range(3)]
    nodes = build_merkle_tree(leaves)
    assert [(node.level, node.position) for node in nodes] == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]
    assert [node.snapshot_id for node in nodes[:3]] == ["s0", "s1", "s2"]
    assert nodes[1].snapshot_content_hash == f"{1:064x}"
    assert {leaf.position for leaf in leaves} == {7}


def test_a_proof_needs_only_hash_level_and_position_in_any_order():
    for size in (1, 2, 3, 6, 7, 11, 64, 65):
        nodes = tree_of(size)
        rows = [MerkleNode(node.hash, node.level, node.position) for node in nodes]
        random.Random(size).shuffle(rows)
        for leaf in nodes[:size]:
            assert generate_proof(rows, leaf.hash) == generate_proof(nodes, leaf.hash)
        assert get_root(rows).hash == get_root(nodes).hash


def test_of_equal_leaves_the_first_is_proven():
    nodes = build_merkle_tree([MerkleNode(leaf_hash(c), 0, 0) for c in (b"a", b"b", b"b")])
    proof = generate_proof(nodes, leaf_hash(b"b"))
    assert [step.position for step in proof] == ["left", "right"]
    assert verify_proof(leaf_hash(b"b"), proof, get_root(nodes).hash)


def test_an_unknown_leaf_is_named():
    with pytest.raises(ValueError, match="no leaf of this tree has the hash ffff"):
        generate_proof(tree_of(5), "f" * 64)
    nodes = tree_of(5)
    with pytest.raises(ValueError, match="no leaf"):
        generate_proof(nodes, get_root(nodes).hash)
    with pytest.raises(ValueError, match="no leaf"):
        generate_proof([], "f" * 64)


def test_a_tree_that_lacks_any_node_proves_nothing():
    whole = tree_of(7)
    for missing in whole:
        nodes = [node for node in whole if node is not missing]
        for leaf in nodes[: sum(node.level == 0 for node in nodes)]:
            with pytest.raises(ValueError, match="load the whole tree"):
                generate_proof(nodes, leaf.hash)


def test_a_node_at_a_wrong_place_is_named():
    nodes = tree_of(4)
    nodes[4].position = 7
    with pytest.raises(ValueError, match="lacks its node at level 1, position 0"):
        generate_proof(nodes, nodes[3].hash)


def test_nodes_of_two_trees_have_no_root():
    with pytest.raises(ValueError, match="not the nodes of one tree"):
        get_root([*tree_of(4), *tree_of(4)])


@pytest.mark.parametrize("bad", ["", "0" * 63, "G" * 64, "A" * 64, "0" * 64 + "\n", "\u0660" * 64])
def test_what_is_no_hash_is_refused(bad):
    with pytest.raises(ValueError, match="hash of leaf 1 must be 64 lower-case"):
        build_merkle_tree([MerkleNode("0" * 64, 0, 0), MerkleNode(bad, 0, 1)])
    with pytest.raises(ValueError, match="content hash of snapshot s1"):
        snapshot_leaf("s1", bad)
    assert not verify_proof(bad, [], bad)
    assert not verify_proof("0" * 64, [ProofStep(bad, "left")], "0" * 64)


def flipped(text):
    return ("1" if text[0] == "0" else "0") + text[1:]


OTHER_SIDE = {"left": "right", "right": "left"}


@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 21, 64, 65])
def test_no_changed_proof_verifies(size):
    nodes = tree_of(size)
    root = get_root(nodes).hash
    for leaf in nodes[:size]:
        proof = generate_proof(nodes, leaf.hash)
        assert not verify_proof(flipped(leaf.hash), proof, root)
        assert not verify_proof(leaf.hash, proof, flipped(root))
        assert not verify_proof(leaf.hash, proof[:-1], root)
        assert not verify_proof(leaf.hash, proof[1:], root)
        assert not verify_proof(leaf.hash, [], root)
        assert not verify_proof(leaf.hash, [*proof, proof[-1]], root)
        assert not verify_proof(leaf.hash, [ProofStep(root, "left"), *proof], root)
        for index, step in enumerate(proof):
            for wrong in (
                ProofStep(flipped(step.hash), step.position),
                ProofStep(step.hash, OTHER_SIDE[step.position]),
                ProofStep(step.hash, "up"),
                ProofStep(step.hash, step.position.upper()),
                ProofStep(step.hash[:-1], step.position),
                ProofStep(step.hash.upper() + " ", step.position),
            ):
                assert not verify_proof(leaf.hash, [*proof[:index], wrong, *proof[index + 1 :]], root)
        for index in range(len(proof) - 1):
            swapped = [*proof[:index], proof[index + 1], proof[index], *proof[index + 2 :]]
            assert not verify_proof(leaf.hash, swapped, root)


def test_a_proof_holds_for_its_own_leaf_and_root_only():
    nodes, others = tree_of(9), tree_of(10)
    for first in nodes[:9]:
        proof = generate_proof(nodes, first.hash)
        assert not verify_proof(first.hash, proof, get_root(others).hash)
        assert not any(verify_proof(other.hash, proof, get_root(nodes).hash) for other in nodes if other is not first)


def test_a_pair_cannot_pass_for_a_leaf():
    nodes = tree_of(4)
    pair = nodes[4]
    content = bytes.fromhex(pair.left.hash) + bytes.fromhex(pair.right.hash)
    assert leaf_hash(content) != pair.hash
    assert not verify_proof(leaf_hash(content), [ProofStep(nodes[5].hash, "right")], get_root(nodes).hash)


@pytest.mark.parametrize("size", [2, 7, 16, 33])
def test_changing_adding_removing_or_swapping_leaves_changes_the_root(size):
    leaves = [MerkleNode(leaf_hash(content), 0, 0) for content in contents(size)]
    root = get_root(build_merkle_tree(leaves)).hash
    more = MerkleNode(leaf_hash(b"more"), 0, 0)
    for index in range(size):
        changed = [*leaves[:index], more, *leaves[index + 1 :]]
        swapped = [leaves[index], *leaves[1:index], leaves[0], *leaves[index + 1 :]] if index else [*leaves, leaves[-1]]
        for other in (
            changed,
            swapped,
            [*leaves[:index], *leaves[index + 1 :]],
            [*leaves[:index], more, *leaves[index:]],
        ):
            assert get_root(build_merkle_tree(other)).hash != root


def test_a_merkle_proof_starts_with_what_is_known_of_a_fresh_snapshot():
    proof = MerkleProof("s", "0" * 64)
    assert (proof.cycle_id, proof.cycle_root, proof.checkpoint_id, proof.merkle_root, proof.path) == (None,) * 4 + ([],)
