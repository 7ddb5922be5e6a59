"""What the web app draws by."""

from __future__ import annotations

from fastapi import APIRouter

from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context
from coordinator_node.api.layout import layout_of
from coordinator_node.schemas.report.layout import Layout, LeaderboardColumn, Widget

router = APIRouter(prefix="/reports/schema", tags=["schema"], dependencies=[PUBLIC])


@router.get("")
async def schema(context: Context) -> Layout:
    """The leaderboard's columns and the charts, in order, made from the competition's config."""
    return layout_of(context.config)


@router.get("/leaderboard-columns")
async def leaderboard_columns(context: Context) -> list[LeaderboardColumn]:
    """The leaderboard's columns, in order."""
    return layout_of(context.config).leaderboard_columns


@router.get("/metrics-widgets")
async def metrics_widgets(context: Context) -> list[Widget]:
    """The charts, in order. 1, 2 and 3 are always models/global, predictions and models/params."""
    return layout_of(context.config).metrics_widgets
