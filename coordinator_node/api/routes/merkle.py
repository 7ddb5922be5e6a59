"""The Merkle log, its proofs, and the evidence of a checkpoint. Public: they exist to be checked by strangers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query

from coordinator_node.api.answers import UNCHANGED, TaggedRoute
from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context, ReportContext
from coordinator_node.api.errors import not_found
from coordinator_node.api.pages import PAGED, Paging
from coordinator_node.api.parameters import CheckpointId, Limit, SinceUntil, Text
from coordinator_node.db.reports import merkle
from coordinator_node.db.reports.evidence import Cursor, CursorError, checkpoint_with_root, evidence_page
from coordinator_node.schemas.report.merkle import Evidence, MerkleCommitment, MerkleCycle, MerkleProofAnswer
from coordinator_node.schemas.report.wire import Problem

router = APIRouter(
    prefix="/reports", tags=["evidence"], dependencies=[PUBLIC], route_class=TaggedRoute, responses=UNCHANGED
)

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such row in the log."}}

After = Annotated[int, Query(ge=0, le=2**62, description="The position that the answer begins behind.")]
PageCursor = Annotated[str | None, Query(description="`next` of the page before; the first page when left out.")]


@router.get("/merkle/cycles", responses=PAGED)
def cycles(context: Context, span: SinceUntil, pages: Paging, limit: Limit = 50) -> list[MerkleCycle]:
    """The score cycles, newest first; `since` and `until` bound when they were made."""
    after = pages.after(merkle.CyclePlace)
    with context.database.reading() as connection:
        found = merkle.cycles(connection, since=span.start, until=span.end, limit=limit + 1, after=after)
    return [MerkleCycle(**row) for row in pages.page(found, limit, merkle.CyclePlace.of)]


@router.get("/merkle/cycles/{cycle_id}", responses=UNKNOWN)
def cycle(context: Context, cycle_id: Annotated[Text, Path(description="A cycle's id.")]) -> MerkleCycle:
    """One score cycle."""
    with context.database.reading() as connection:
        row = merkle.cycle_by_id(connection, cycle_id)
    if row is None:
        raise not_found(f"cycle {cycle_id}")
    return MerkleCycle(**row)


@router.get("/merkle/commitments", responses=PAGED)
def commitments(context: Context, pages: Paging, after: After = 0, limit: Limit = 1000) -> list[MerkleCommitment]:
    """The roots over predictions whose outcomes were unknown, in the order of their chain, behind a position."""
    place = pages.after(merkle.CommitmentPlace)
    behind = after if place is None else max(after, place.position)
    with context.database.reading() as connection:
        found = merkle.commitments(connection, after=behind, limit=limit + 1)
    return [MerkleCommitment(**row) for row in pages.page(found, limit, merkle.CommitmentPlace.of)]


@router.get("/merkle/proof", responses=UNKNOWN)
def proof(
    context: Context,
    snapshot_id: Annotated[Text | None, Query(description="Whose path is asked for; this or prediction_id.")] = None,
    prediction_id: Annotated[Text | None, Query(description="Whose path is asked for; this or snapshot_id.")] = None,
) -> MerkleProofAnswer:
    """The path from a snapshot, or from a prediction that one counts, to its checkpoint's root."""
    with context.database.reading() as connection:
        if snapshot_id is not None and prediction_id is None:
            found = merkle.snapshot_proof(connection, snapshot_id)
        elif prediction_id is not None and snapshot_id is None:
            found = merkle.prediction_proof(connection, prediction_id)
        else:
            raise HTTPException(422, "give snapshot_id or prediction_id, one of them")
    if found is None:
        asked = f"counted prediction {prediction_id}" if snapshot_id is None else f"snapshot {snapshot_id}"
        raise not_found(f"{asked} in the log")
    return MerkleProofAnswer.model_validate(found, from_attributes=True)


# Before the path with an id, which would take "latest" for one.
@router.get("/evidence/latest", responses=UNKNOWN)
def latest_evidence(context: Context, cursor: PageCursor = None) -> Evidence:
    """All that is needed to recompute the newest checkpoint, a page of it; ask for the others by its id."""
    return _evidence(context, None, cursor)


@router.get("/evidence/{checkpoint_id}", responses=UNKNOWN)
def evidence(context: Context, checkpoint_id: CheckpointId, cursor: PageCursor = None) -> Evidence:
    """All that is needed to recompute a checkpoint, a page of it."""
    return _evidence(context, checkpoint_id, cursor)


def _evidence(context: ReportContext, checkpoint_id: str | None, cursor: str | None) -> Evidence:
    try:
        begin = Cursor.parse(cursor) if cursor else Cursor()
        with context.database.reading() as connection:
            checkpoint = checkpoint_with_root(connection, checkpoint_id)
            if checkpoint is None:
                raise not_found(
                    f"checkpoint {checkpoint_id} with evidence" if checkpoint_id else "checkpoint with evidence yet"
                )
            page = evidence_page(connection, checkpoint, begin)
    except CursorError:
        raise HTTPException(422, "cursor: not one that an answer gave as `next`") from None
    return Evidence.model_validate(page, from_attributes=True)
