"""Rounds of a tournament. Mounted only where the config asks for tournament mode."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from coordinator_node.api.auth import ADMIN
from coordinator_node.api.context import Context
from coordinator_node.api.parameters import Text
from coordinator_node.schemas.report.examples import EXAMPLES
from coordinator_node.schemas.report.rounds import MAX_ID_CHARACTERS, Round, RoundFeatures, RoundTruth
from coordinator_node.schemas.report.wire import Problem
from coordinator_node.services.tournament.rounds import queue_round, round_status
from coordinator_node.services.tournament.truths import give_truth

router = APIRouter(prefix="/tournament/rounds", tags=["tournament"], dependencies=[ADMIN])

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such round."}}
EXISTS: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "There is a round of this id, or no model is known."}
}
REFUSED: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "Its models are still being asked, or a row has another ground truth."}
}


async def _body(request: Request) -> bytes:
    return await request.body()


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The body's part of the OpenAPI page, which cannot be seen from the endpoint's parameters."""
    content = {"schema": model.model_json_schema(), "example": EXAMPLES[model.__name__]}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


RoundId = Annotated[
    Text, Path(min_length=1, max_length=MAX_ID_CHARACTERS, description="A round's id, as its client chose it.")
]
Body = Annotated[bytes, Depends(_body)]


@router.post("/{round_id}/inference", status_code=202, responses=EXISTS, openapi_extra=_schema(RoundFeatures))
def inference(context: Context, round_id: RoundId, body: Body) -> Round:
    """Queue a round: every known model is asked for one prediction for each feature row, by the predict workers."""
    given = _parsed(RoundFeatures, body)
    with context.database.writing() as session:
        queue_round(session, context.config, round_id, given.features, context.clock())
        return Round(**round_status(session.connection(), round_id))


@router.post("/{round_id}/score", responses={**UNKNOWN, **REFUSED}, openapi_extra=_schema(RoundTruth))
def score(context: Context, round_id: RoundId, body: Body) -> Round:
    """Give a round's ground truth; the score workers score by it. The same given again changes nothing."""
    given = _parsed(RoundTruth, body)
    with context.database.writing() as session:
        give_truth(session, context.config, round_id, given.ground_truth, context.clock())
        return Round(**round_status(session.connection(), round_id))


@router.get("/{round_id}/status", responses=UNKNOWN)
def status(context: Context, round_id: RoundId) -> Round:
    """How far a round has come."""
    with context.database.reading_own_writes() as connection:
        return Round(**round_status(connection, round_id))


def _parsed[M: BaseModel](model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_input=False)]
        raise RequestValidationError(faults) from None
