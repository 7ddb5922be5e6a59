"""Whether the API works, and for which competition."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context
from coordinator_node.schemas.report.competition import Health, Info
from coordinator_node.schemas.report.wire import Problem

router = APIRouter(tags=["health"], dependencies=[PUBLIC])


@router.get("/healthz", responses={503: {"model": Problem, "description": "The database does not answer."}})
async def healthz(context: Context) -> Health:
    """Whether the API and its database answer."""
    if not await context.probe.answers():
        raise HTTPException(503, "the database does not answer")
    return Health()


@router.get("/info")
async def info(context: Context) -> Info:
    """Which competition this is, and on which network."""
    settings = context.settings
    return Info(
        crunch_id=settings.crunch_id,
        crunch_address=settings.crunch_pubkey or context.config.crunch_pubkey,
        network=settings.network,
    )
