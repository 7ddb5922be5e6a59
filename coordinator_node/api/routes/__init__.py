"""The built-in endpoints, one module a theme."""

from fastapi import APIRouter

from coordinator_node.api.routes import (
    backfill,
    checkpoints,
    feeds,
    health,
    leaderboard,
    live,
    merkle,
    predictions,
    standings,
    tournament,
)

BUILT_IN: tuple[APIRouter, ...] = (
    health.router,
    leaderboard.router,
    standings.router,
    predictions.router,
    feeds.router,
    checkpoints.router,
    merkle.router,
    backfill.router,
    live.router,
)
TOURNAMENT: tuple[APIRouter, ...] = (tournament.router,)

__all__ = ["BUILT_IN", "TOURNAMENT"]
