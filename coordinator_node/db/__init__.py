"""Engine and session, tables, repositories, claims, locks, and the runner of migrations."""

from coordinator_node.db.backfill_jobs import DBBackfillJobRepository
from coordinator_node.db.feed_records import DBFeedRecordRepository
from coordinator_node.db.repositories import (
    DBCheckpointRepository,
    DBInputRepository,
    DBLeaderboardRepository,
    DBMerkleCycleRepository,
    DBMerkleNodeRepository,
    DBModelRepository,
    DBPredictionRepository,
    DBScoreRepository,
    DBSnapshotRepository,
)
from coordinator_node.db.session import create_session

__all__ = [
    "DBBackfillJobRepository",
    "DBCheckpointRepository",
    "DBFeedRecordRepository",
    "DBInputRepository",
    "DBLeaderboardRepository",
    "DBMerkleCycleRepository",
    "DBMerkleNodeRepository",
    "DBModelRepository",
    "DBPredictionRepository",
    "DBScoreRepository",
    "DBSnapshotRepository",
    "create_session",
]
