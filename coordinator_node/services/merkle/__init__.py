"""The Merkle log: predictions committed before their outcome, cycles chained, checkpoints sealed."""
