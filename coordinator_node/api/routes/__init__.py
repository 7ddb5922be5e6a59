"""The built-in endpoints, one module a theme."""

from fastapi import APIRouter

from coordinator_node.api.ready import Ready
from coordinator_node.api.routes import (
    backfill,
    checkpoints,
    diversity,
    feeds,
    health,
    leaderboard,
    live,
    merkle,
    predictions,
    rewards,
    schema,
    standings,
    tournament,
)

BUILT_IN: tuple[APIRouter, ...] = (
    health.router,
    schema.router,
    leaderboard.router,
    standings.router,
    diversity.router,
    predictions.router,
    feeds.router,
    rewards.router,
    checkpoints.router,
    merkle.router,
    backfill.router,
    live.router,
)
TOURNAMENT: tuple[APIRouter, ...] = (tournament.router,)

READY: dict[str, Ready] = leaderboard.READY | schema.READY
"""The answers that are asked for most, by path."""

__all__ = ["BUILT_IN", "READY", "TOURNAMENT"]
