"""Checkpoints, their emissions and prizes, and their way to PAID."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from coordinator_node.api.answers import UNCHANGED, Encoded, TaggedRoute
from coordinator_node.api.auth import ADMIN, READ
from coordinator_node.api.callers import Caller
from coordinator_node.api.context import Context, ReportContext
from coordinator_node.api.errors import not_found
from coordinator_node.api.pages import PAGED, Paging
from coordinator_node.api.parameters import CheckpointId, Limit
from coordinator_node.db.reports.checkpoints import (
    CheckpointPlace,
    checkpoint_by_id,
    newest_checkpoints,
    newest_version,
)
from coordinator_node.db.reports.records import Record
from coordinator_node.entities.prediction import CheckpointStatus, RetainingEmission
from coordinator_node.schemas.report.payouts import (
    Checkpoint,
    CheckpointEmission,
    CheckpointPayload,
    CheckpointPrizes,
    CliEmission,
    Confirmation,
    Prize,
    StatusChange,
)
from coordinator_node.schemas.report.wire import JsonObject, Problem, list_or_empty, object_or_empty
from coordinator_node.services.payout import (
    UnknownCheckpointError,
    advance_checkpoint,
    cli_emission,
    confirm_checkpoint,
    emission_in,
    prizes,
)

router = APIRouter(prefix="/reports", tags=["checkpoints"], route_class=TaggedRoute)

# What a chain keeps in 64 bits, signed or not.
MOST_PRIZE = 2**63 - 1
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such checkpoint."}}
REFUSED: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "The checkpoint's present state does not allow it."}
}
READING: dict[int | str, dict[str, Any]] = {**UNKNOWN, **REFUSED, **UNCHANGED}

Status = Annotated[CheckpointStatus | None, Query(description="Only those of this status; all when left out.")]
TotalPrize = Annotated[
    int,
    Query(
        ge=0,
        le=MOST_PRIZE,
        description="The pool, in its smallest unit. Browsers read numbers above 2**53 without their last digits.",
    ),
]


@router.get("/checkpoints", dependencies=[READ], responses={**PAGED, **UNCHANGED})
def checkpoints(context: Context, pages: Paging, status: Status = None, limit: Limit = 20) -> list[Checkpoint]:
    """Checkpoints, newest first by the end of their period."""
    after = pages.after(CheckpointPlace)
    with context.database.reading_own_writes() as connection:
        found = newest_checkpoints(connection, status=status, limit=limit + 1, after=after)
    return [_checkpoint(row) for row in pages.page(found, limit, CheckpointPlace.of)]


# The paths of the newest checkpoint stand before those with an id, which would take "latest" for one.
@router.get("/checkpoints/latest", dependencies=[ADMIN], response_model=Checkpoint, responses={**UNKNOWN, **UNCHANGED})
async def latest_checkpoint(context: Context, request: Request) -> Response:
    """The checkpoint whose period ends last."""
    return await _of_latest(context, request, "checkpoint", _checkpoint)


@router.get("/checkpoints/latest/prizes", dependencies=[ADMIN], responses=READING)
def latest_prizes(context: Context, total_prize: TotalPrize) -> CheckpointPrizes:
    """The pool divided by the newest emission, in rank order; the prizes sum to exactly total_prize."""
    row = _latest(context)
    return CheckpointPrizes(**_period(row), total_prize=total_prize, prizes=_prizes(row, total_prize))


@router.get("/checkpoints/{checkpoint_id}/prizes", dependencies=[ADMIN], responses=READING)
def checkpoint_prizes(context: Context, checkpoint_id: CheckpointId, total_prize: TotalPrize) -> list[Prize]:
    """The pool divided by a checkpoint's emission, in rank order; the prizes sum to exactly total_prize."""
    return _prizes(_by_id(context, checkpoint_id), total_prize)


@router.get("/checkpoints/{checkpoint_id}/payload", dependencies=[ADMIN], responses={**UNKNOWN, **UNCHANGED})
def checkpoint_payload(context: Context, checkpoint_id: CheckpointId) -> CheckpointPayload:
    """What is to be sent to the chain, with the ranking that its indexes point into."""
    row = _by_id(context, checkpoint_id)
    return CheckpointPayload(**_period(row), entries=_entries(row), meta=object_or_empty(row["meta"]))


@router.get("/checkpoints/{checkpoint_id}/emission", dependencies=[ADMIN], responses=READING)
def checkpoint_emission(context: Context, checkpoint_id: CheckpointId) -> RetainingEmission:
    """The reward shares, in frac64: 1_000_000_000 is 100 %; `retained_pct` is the part of the pool not paid out."""
    return emission_in(_by_id(context, checkpoint_id))


@router.get("/checkpoints/{checkpoint_id}/emission/cli-format", dependencies=[ADMIN], responses=READING)
def checkpoint_cli_emission(context: Context, checkpoint_id: CheckpointId) -> CliEmission:
    """The reward shares as the chain's command line takes them: percentages by model and by address."""
    return CliEmission(**cli_emission(_by_id(context, checkpoint_id)))


@router.get("/emissions/latest", dependencies=[READ], response_model=CheckpointEmission, responses=READING)
async def latest_emission(context: Context, request: Request) -> Response:
    """The newest checkpoint's reward shares, in frac64: 1_000_000_000 is 100 %."""
    return await _of_latest(
        context, request, "emission", lambda row: CheckpointEmission(**_period(row), emission=emission_in(row))
    )


@router.post("/checkpoints/{checkpoint_id}/confirm", dependencies=[ADMIN], responses={**UNKNOWN, **REFUSED})
def confirm(context: Context, caller: Caller, checkpoint_id: CheckpointId, body: Confirmation) -> Checkpoint:
    """PENDING to SUBMITTED, with its transaction; the same transaction confirmed again changes nothing."""
    with context.database.writing() as session:
        row = confirm_checkpoint(session, checkpoint_id, body.tx_hash, caller, context.clock())
    return _checkpoint(row)


@router.patch("/checkpoints/{checkpoint_id}/status", dependencies=[ADMIN], responses={**UNKNOWN, **REFUSED})
def change_status(context: Context, caller: Caller, checkpoint_id: CheckpointId, body: StatusChange) -> Checkpoint:
    """One step forward: PENDING, SUBMITTED, CLAIMABLE, PAID."""
    with context.database.writing() as session:
        row = advance_checkpoint(session, checkpoint_id, body.status, caller, context.clock())
    return _checkpoint(row)


def _latest(context: ReportContext) -> Record:
    with context.database.reading_own_writes() as connection:
        rows = newest_checkpoints(connection)
    if not rows:
        raise not_found("checkpoint yet")
    return rows[0]


async def _of_latest(
    context: ReportContext, request: Request, name: str, told: Callable[[Record], BaseModel]
) -> Response:
    """What is told of the newest checkpoint, encoded once for each state of it."""

    def look(last: Encoded | None) -> Encoded:
        with context.database.reading_own_writes() as connection:
            version = newest_version(connection)
            if last is not None and last.version == version:
                return last
            rows = newest_checkpoints(connection)
        if not rows:
            raise not_found("checkpoint yet")
        return Encoded.of(version, told(rows[0]))

    encoded = await context.answers.get(("latest", name), look)
    return encoded.answer(request)


def _by_id(context: ReportContext, checkpoint_id: str) -> Record:
    with context.database.reading_own_writes() as connection:
        row = checkpoint_by_id(connection, checkpoint_id)
    if row is None:
        raise UnknownCheckpointError(checkpoint_id)
    return row


def _checkpoint(row: Record) -> Checkpoint:
    return Checkpoint(**{**row, "entries": _entries(row), "meta": object_or_empty(row["meta"])})


def _entries(row: Record) -> list[JsonObject]:
    return [object_or_empty(entry) for entry in list_or_empty(row["entries"])]


def _period(row: Record) -> dict[str, Any]:
    return {
        "checkpoint_id": row["id"],
        "status": row["status"],
        "period_start": row["period_start"],
        "period_end": row["period_end"],
    }


def _prizes(row: Record, total_prize: int) -> list[Prize]:
    return [Prize(**prize) for prize in prizes(row, total_prize)]
