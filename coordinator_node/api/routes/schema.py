"""What the web app draws by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from coordinator_node.api.answers import UNCHANGED, Encoded
from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context, ReportContext
from coordinator_node.api.layout import layout_of
from coordinator_node.schemas.report.layout import Layout, LeaderboardColumn, Widget

router = APIRouter(prefix="/reports/schema", tags=["schema"], dependencies=[PUBLIC], responses=UNCHANGED)


@router.get("", response_model=Layout)
async def schema(context: Context, request: Request) -> Response:
    """The leaderboard's columns and the charts, in order, made from the competition's config."""
    return await _part(context, request, "whole", lambda layout: layout)


@router.get("/leaderboard-columns", response_model=list[LeaderboardColumn])
async def leaderboard_columns(context: Context, request: Request) -> Response:
    """The leaderboard's columns, in order."""
    return await _part(context, request, "columns", lambda layout: layout.leaderboard_columns)


@router.get("/metrics-widgets", response_model=list[Widget])
async def metrics_widgets(context: Context, request: Request) -> Response:
    """The charts, in order. 1, 2 and 3 are always models/global, predictions and models/params."""
    return await _part(context, request, "widgets", lambda layout: layout.metrics_widgets)


async def _part(
    context: ReportContext,
    request: Request,
    name: str,
    part: Callable[[Layout], BaseModel | Sequence[BaseModel]],
) -> Response:
    """A part of the layout, encoded once: the config is that of the process."""
    encoded = await context.answers.get(
        ("schema", name), lambda last: last or Encoded.of((), part(layout_of(context.config)))
    )
    return encoded.answer(request)
