"""Canonical bytes, hashes, the Merkle tree and its proofs; usable without the rest of the engine."""

from coordinator_node.merkle.canonical import canonical_snapshot_hash
from coordinator_node.merkle.tree import build_merkle_tree, generate_proof, get_root, verify_proof

__all__ = ["build_merkle_tree", "canonical_snapshot_hash", "generate_proof", "get_root", "verify_proof"]
