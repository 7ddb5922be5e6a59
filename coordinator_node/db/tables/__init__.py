"""Every table, one row class each. Alembic's migrations are the only way a schema comes to be."""

from coordinator_node.db.tables.checkpoints import CheckpointMoveRow, CheckpointRow, MerkleCycleRow, MerkleNodeRow
from coordinator_node.db.tables.feed import BackfillJobRow, FeedIngestionStateRow, FeedRecordRow
from coordinator_node.db.tables.merkle import MerkleCommitmentRow, MerkleCountedRow
from coordinator_node.db.tables.models import LeaderboardRow, ModelRow
from coordinator_node.db.tables.predictions import (
    InputRow,
    PredictionRow,
    PredictionSlotRow,
    ScheduledPredictionConfigRow,
    SlotCallRow,
)
from coordinator_node.db.tables.runtime import EngineStateRow, LeaseRow, WorkerHeartbeatRow
from coordinator_node.db.tables.scores import EnsembleWeightsRow, RescoreRow, ScoreRow, ScoringStateRow, SnapshotRow
from coordinator_node.db.tables.series import PredictionBucketRow, SnapshotBucketRow

__all__ = [
    "BackfillJobRow",
    "CheckpointMoveRow",
    "CheckpointRow",
    "EngineStateRow",
    "EnsembleWeightsRow",
    "FeedIngestionStateRow",
    "FeedRecordRow",
    "InputRow",
    "LeaderboardRow",
    "LeaseRow",
    "MerkleCommitmentRow",
    "MerkleCountedRow",
    "MerkleCycleRow",
    "MerkleNodeRow",
    "ModelRow",
    "PredictionBucketRow",
    "PredictionRow",
    "PredictionSlotRow",
    "RescoreRow",
    "ScheduledPredictionConfigRow",
    "ScoreRow",
    "ScoringStateRow",
    "SlotCallRow",
    "SnapshotBucketRow",
    "SnapshotRow",
    "WorkerHeartbeatRow",
]
