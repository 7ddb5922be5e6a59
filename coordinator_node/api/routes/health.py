"""Whether the API works, for which competition, and what stands behind it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Response
from prometheus_client import CONTENT_TYPE_LATEST

from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context
from coordinator_node.runtime.metrics import exposition
from coordinator_node.schemas.report.competition import Health, Info
from coordinator_node.schemas.report.health import Readiness
from coordinator_node.schemas.report.wire import Problem

router = APIRouter(tags=["health"], dependencies=[PUBLIC])

NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Readiness, "description": "The API cannot serve."}}
FIGURES = """# HELP coordinator_stage_backlog Rows that wait for a stage, at most 100,000.
# TYPE coordinator_stage_backlog gauge
coordinator_stage_backlog{stage="score"} 12.0
"""
TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/plain": {"schema": {"type": "string"}, "example": FIGURES}},
        "description": "Prometheus's text format.",
    }
}


@router.get("/healthz", responses={503: {"model": Problem, "description": "The database does not answer."}})
async def healthz(context: Context) -> Health:
    """Whether the API and its database answer."""
    if not await context.probe.answers():
        raise HTTPException(503, "the database does not answer")
    return Health()


@router.get("/readyz", responses=NOT_READY)
async def readyz(context: Context, response: Response) -> Readiness:
    """Whether the API can serve, and what does not work behind it: schema, workers, feeds, what waits to be scored.

    503 only where the API itself cannot serve: its database does not answer, or is not migrated to this version. A
    worker that is missing makes it `degraded`, which is 200: what is stored can still be read.
    """
    readiness = context.judge.readiness(await context.health.facts(), context.clock())
    if not readiness.ready:
        response.status_code = 503
    return readiness


@router.get("/metrics", response_class=Response, responses=TEXT)
async def metrics(context: Context) -> Response:
    """Figures of this API, of every worker that does not serve its own, and of what waits in the database."""
    facts = await context.health.facts()
    others = [(worker.worker_id, worker.metrics) for worker in facts.workers] if facts else []
    text = exposition(others, context.judge.metrics(facts, context.clock()))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/info")
async def info(context: Context) -> Info:
    """Which competition this is, and on which network."""
    settings = context.settings
    return Info(
        crunch_id=settings.crunch_id,
        crunch_address=settings.crunch_pubkey or context.config.crunch_pubkey,
        network=settings.network,
    )
