"""The built-in endpoints, one module a theme."""

from fastapi import APIRouter

from coordinator_node.api.routes import checkpoints, feeds, health, leaderboard, predictions

BUILT_IN: tuple[APIRouter, ...] = (
    health.router,
    leaderboard.router,
    predictions.router,
    feeds.router,
    checkpoints.router,
)

__all__ = ["BUILT_IN"]
