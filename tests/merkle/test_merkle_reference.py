"""Roots and proofs beside pymerkle, another implementation of RFC 9162, for trees of 1 to 1,000 leaves."""

import random

import pytest
from pymerkle import InmemoryTree, InvalidProof, verify_inclusion

from coordinator_node.merkle import build_merkle_tree, generate_proof, get_root, verify_proof
from coordinator_node.merkle.tree import MerkleNode, ProofStep, leaf_hash, root_of

LARGEST = 1000
CONTENTS = [f"leaf {index}".encode() for index in range(LARGEST)]
LEAVES = [MerkleNode(leaf_hash(content), 0, 0) for content in CONTENTS]


@pytest.fixture(scope="module")
def reference():
    tree = InmemoryTree(algorithm="sha256")
    for content in CONTENTS:
        tree.append_entry(content)
    return tree


def test_roots_and_proofs_are_those_of_the_reference_and_no_other_leaf_has_them(reference):
    hashes = [bytes.fromhex(leaf.hash) for leaf in LEAVES]
    for size in range(1, LARGEST + 1):
        root = reference.get_root(size)
        nodes = build_merkle_tree(LEAVES[:size])
        assert root_of(hashes[:size]).hex() == get_root(nodes).hash == root.hex()
        index = random.Random(size).choice([0, size - 1, size // 2])
        path = generate_proof(nodes, LEAVES[index].hash)
        # The reference's path begins with the leaf itself.
        theirs = reference.prove_inclusion(index + 1, size)
        assert [step.hash for step in path] == [sibling.hex() for sibling in theirs.path[1:]]
        verify_inclusion(hashes[index], root, theirs)
        assert verify_proof(LEAVES[index].hash, path, root.hex())
        other = LEAVES[(index + 1) % LARGEST].hash
        assert not verify_proof(other, path, root.hex())
        with pytest.raises(InvalidProof):
            verify_inclusion(bytes.fromhex(other), root, theirs)
        if path:
            assert not verify_proof(LEAVES[index].hash, path[:-1], root.hex())
            swapped = [ProofStep(step.hash, {"left": "right", "right": "left"}[step.position]) for step in path]
            assert not verify_proof(LEAVES[index].hash, swapped, root.hex())
