"""Predictions are committed before their outcome: a root over a batch, in the transaction that stores the batch.

Whoever stores predictions calls `commit_predictions` with the rows; the leader chains the roots later, so that two
writers never wait for one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from coordinator_node.db.tables import MerkleCommitmentRow
from coordinator_node.entities.ids import new_id
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.merkle.documents import commitment_header, prediction_leaf, sealed
from coordinator_node.merkle.tree import root_of
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

CHAINED_AT_ONCE = 5000

COMMITTED_LATE = "committed late"
"""Why a prediction failed whose commitment is not older than the moment when its outcome could be known."""

_THERE = text(
    """
    SELECT predictions.slot_id, predictions.model_id FROM predictions
    JOIN unnest(CAST(:slots AS text[]), CAST(:models AS text[])) AS given(slot_id, model_id)
      ON predictions.slot_id = given.slot_id AND predictions.model_id = given.model_id
    """
)
_LAST = text(
    "SELECT position, chained_root FROM merkle_commitments WHERE position IS NOT NULL ORDER BY position DESC LIMIT 1"
)
_UNCHAINED = text(
    """
    SELECT id, root, prediction_count, committed_at FROM merkle_commitments
    WHERE position IS NULL ORDER BY committed_at, id LIMIT :limit
    """
)
_CHAIN = text(
    """
    UPDATE merkle_commitments AS commitment
    SET position = chain.position, previous_root = chain.previous_root, chained_root = chain.chained_root
    FROM unnest(CAST(:ids AS text[]), CAST(:positions AS bigint[]), CAST(:previous AS text[]), CAST(:chained AS text[]))
         AS chain(id, position, previous_root, chained_root)
    WHERE commitment.id = chain.id
    """
)


def commit_predictions(session: Session, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Commit the rows that are about to be inserted, in the session's transaction.

    Those that wait for the outcome of a schedule with a horizon are committed. A row whose (slot, model) is there
    already is left out: it will not be inserted, and a leaf that nobody ever shows would be a hiding place.

    Args:
        session: the transaction that inserts them; the caller commits.
        rows: columns of `predictions`, with `id` and all that `prediction_leaf` reads.
        now: becomes `committed_at`.

    Returns:
        The rows in their order, each with `commitment_id` and `commitment_index`; both None for one not committed.
    """
    there = _present(session, rows)
    leaves: list[bytes] = []
    commitment_id = new_id()
    given: list[dict[str, Any]] = []
    for row in rows:
        leaf = _leaf(row) if _waits(row) and (row.get("slot_id"), row["model_id"]) not in there else None
        named = (None, None) if leaf is None else (commitment_id, len(leaves))
        given.append({**row, "commitment_id": named[0], "commitment_index": named[1]})
        leaves += [leaf] if leaf is not None else []
    if leaves:
        _store(session, commitment_id, leaves, now)
    return given


def chain_commitments(session: Session) -> str | None:
    """Give every commitment that has none its place in the chain, in order of time; for one leader at once.

    Returns:
        The newest chained root; None while there is no commitment.
    """
    position, newest = session.connection().execute(_LAST).one_or_none() or (0, None)
    while True:
        found = session.connection().execute(_UNCHAINED, {"limit": CHAINED_AT_ONCE}).all()
        chain: list[tuple[str, int, str | None, str]] = []
        for row in found:
            position += 1
            header = commitment_header(row.id, position, newest, row.prediction_count, row.committed_at)
            chained = sealed(header, bytes.fromhex(row.root)).hex()
            chain.append((row.id, position, newest, chained))
            newest = chained
        if chain:
            columns = zip(("ids", "positions", "previous", "chained"), map(list, zip(*chain, strict=True)), strict=True)
            session.connection().execute(_CHAIN, dict(columns))
        if len(found) < CHAINED_AT_ONCE:
            return newest


def _present(session: Session, rows: Sequence[Mapping[str, Any]]) -> set[tuple[str | None, str]]:
    """The (slot, model) of those rows that have a prediction already."""
    keys = [(row["slot_id"], row["model_id"]) for row in rows if row.get("slot_id")]
    if not keys:
        return set()
    values = {"slots": [slot_id for slot_id, _ in keys], "models": [model_id for _, model_id in keys]}
    return {(row.slot_id, row.model_id) for row in session.connection().execute(_THERE, values)}


def _waits(row: Mapping[str, Any]) -> bool:
    """Whether there is an outcome to wait for; a tournament's rows, which have no schedule, get theirs by request."""
    return (
        row.get("status") == PredictionStatus.PENDING.value
        and row.get("prediction_config_id") is not None
        and row["resolvable_at"] > row["performed_at"]
    )


def _leaf(row: Mapping[str, Any]) -> bytes | None:
    try:
        return prediction_leaf(row)
    except ValueError as error:
        # The database will refuse the row, or store something else; the batch's other rows are committed.
        log.warning("prediction not committed", prediction_id=row["id"], model_id=row["model_id"], reason=str(error))
        return None


def _store(session: Session, commitment_id: str, leaves: Sequence[bytes], now: datetime) -> None:
    session.connection().execute(
        insert(MerkleCommitmentRow).values(
            id=commitment_id,
            root=root_of(leaves).hex(),
            leaves=b"".join(leaves),
            prediction_count=len(leaves),
            committed_at=now,
        )
    )
