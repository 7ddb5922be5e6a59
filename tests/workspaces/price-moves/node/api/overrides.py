"""A leaderboard of the house's own at a path that the API has already, and one beside it."""

from fastapi import APIRouter

from coordinator_node.db import DBLeaderboardRepository, create_session

router = APIRouter(tags=["overrides"])


@router.get("/reports/leaderboard")
def mine():
    return [{"model_id": "mine"}]


@router.get("/reports/podium")
def podium():
    with create_session() as session:
        latest = DBLeaderboardRepository(session).get_latest() or {"entries": []}
    return [entry["model_id"] for entry in latest["entries"] if entry["rank"] and entry["rank"] <= 3]
