"""The Merkle log's rows, for operators' own code."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from coordinator_node.db.repositories.statements import committing, fresh, newest, upsert
from coordinator_node.db.tables import MerkleCycleRow, MerkleNodeRow
from coordinator_node.entities.times import as_utc


class DBMerkleCycleRepository:
    """Reads and writes the cycles of the log; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, cycle: MerkleCycleRow) -> None:
        """Insert a cycle, or update the one of that id."""
        with committing(self._session):
            values = cycle.model_dump() | {"created_at": as_utc(cycle.created_at)}
            upsert(self._session, MerkleCycleRow, [values])

    def get(self, cycle_id: str) -> MerkleCycleRow | None:
        """One cycle; None where there is none of that id."""
        return self._session.get(MerkleCycleRow, cycle_id, populate_existing=True)

    def get_latest(self) -> MerkleCycleRow | None:
        """The newest cycle; None where there is none."""
        return next(iter(self.find(limit=1)), None)

    def find(
        self, *, since: datetime | None = None, until: datetime | None = None, limit: int | None = None
    ) -> list[MerkleCycleRow]:
        """Cycles made from `since` to `until`, both included: the newest `limit`, in ascending time."""
        query = select(MerkleCycleRow)
        if since is not None:
            query = query.where(col(MerkleCycleRow.created_at) >= as_utc(since))
        if until is not None:
            query = query.where(col(MerkleCycleRow.created_at) <= as_utc(until))
        return newest(self._session, query, col(MerkleCycleRow.created_at), col(MerkleCycleRow.id), limit=limit)


class DBMerkleNodeRepository:
    """Reads and writes the nodes of the trees; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, node: MerkleNodeRow) -> None:
        """Insert a node, or update the one of that id."""
        with committing(self._session):
            upsert(self._session, MerkleNodeRow, [node.model_dump() | {"created_at": as_utc(node.created_at)}])

    def find_by_cycle_id(self, cycle_id: str) -> list[MerkleNodeRow]:
        """The nodes of a cycle's tree, leaves first, each level from the left."""
        return self._in_tree_order(select(MerkleNodeRow).where(col(MerkleNodeRow.cycle_id) == cycle_id))

    def find_by_checkpoint_id(self, checkpoint_id: str) -> list[MerkleNodeRow]:
        """The nodes of a checkpoint's tree, leaves first, each level from the left."""
        return self._in_tree_order(select(MerkleNodeRow).where(col(MerkleNodeRow.checkpoint_id) == checkpoint_id))

    def find_by_snapshot_id(self, snapshot_id: str) -> MerkleNodeRow | None:
        """The leaf of a snapshot; of several the newest; None where it is in no tree."""
        query = select(MerkleNodeRow).where(col(MerkleNodeRow.snapshot_id) == snapshot_id)
        order = (col(MerkleNodeRow.created_at), col(MerkleNodeRow.id))
        return next(iter(newest(self._session, query, *order, limit=1)), None)

    def find_by_hash_in_checkpoint(self, hash_value: str) -> list[MerkleNodeRow]:
        """The nodes of checkpoints' trees that have this hash."""
        query = select(MerkleNodeRow).where(
            col(MerkleNodeRow.hash) == hash_value, col(MerkleNodeRow.checkpoint_id).is_not(None)
        )
        return self._in_tree_order(query)

    def _in_tree_order(self, query: SelectOfScalar[MerkleNodeRow]) -> list[MerkleNodeRow]:
        order = (col(MerkleNodeRow.level), col(MerkleNodeRow.position), col(MerkleNodeRow.id))
        return fresh(self._session, query.order_by(*order))
