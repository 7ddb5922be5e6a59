"""What the web app draws by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from coordinator_node.api.access import Tier
from coordinator_node.api.answers import UNCHANGED, Encoded
from coordinator_node.api.auth import PUBLIC, TierGuard
from coordinator_node.api.context import Context, ReportContext
from coordinator_node.api.layout import layout_of
from coordinator_node.api.ready import Ready
from coordinator_node.schemas.report.layout import Layout, LeaderboardColumn, Widget

router = APIRouter(prefix="/reports/schema", tags=["schema"], dependencies=[PUBLIC], responses=UNCHANGED)


@router.get("", response_model=Layout)
async def schema(context: Context, request: Request) -> Response:
    """The leaderboard's columns and the charts, in order, made from the competition's config."""
    return (await _whole(context)).answer(request)


@router.get("/leaderboard-columns", response_model=list[LeaderboardColumn])
async def leaderboard_columns(context: Context, request: Request) -> Response:
    """The leaderboard's columns, in order."""
    return (await _part(context, "columns", lambda layout: layout.leaderboard_columns)).answer(request)


@router.get("/metrics-widgets", response_model=list[Widget])
async def metrics_widgets(context: Context, request: Request) -> Response:
    """The charts, in order. 1, 2 and 3 are always models/global, predictions and models/params."""
    return (await _part(context, "widgets", lambda layout: layout.metrics_widgets)).answer(request)


READY = {"/reports/schema": Ready(schema, TierGuard(Tier.PUBLIC), lambda context: _whole(context))}


async def _whole(context: ReportContext) -> Encoded:
    return await _part(context, "whole", lambda layout: layout)


async def _part(
    context: ReportContext, name: str, part: Callable[[Layout], BaseModel | Sequence[BaseModel]]
) -> Encoded:
    """A part of the layout, encoded once: the config is that of the process."""
    return await context.answers.once(("schema", name), lambda: Encoded.of((), part(layout_of(context.config))))
