"""Repositories for operators' own code: their writes commit. The engine's stages do not use them."""

from coordinator_node.db.repositories.checkpoints import DBCheckpointRepository
from coordinator_node.db.repositories.inputs import DBInputRepository
from coordinator_node.db.repositories.leaderboards import DBLeaderboardRepository
from coordinator_node.db.repositories.merkle import DBMerkleCycleRepository, DBMerkleNodeRepository
from coordinator_node.db.repositories.models import DBModelRepository
from coordinator_node.db.repositories.predictions import DBPredictionRepository
from coordinator_node.db.repositories.scores import DBScoreRepository
from coordinator_node.db.repositories.snapshots import DBSnapshotRepository

__all__ = [
    "DBCheckpointRepository",
    "DBInputRepository",
    "DBLeaderboardRepository",
    "DBMerkleCycleRepository",
    "DBMerkleNodeRepository",
    "DBModelRepository",
    "DBPredictionRepository",
    "DBScoreRepository",
    "DBSnapshotRepository",
]
