"""Leaderboards, for operators' own code."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, col, delete, select

from coordinator_node.db.repositories.statements import committing, newest
from coordinator_node.db.repositories.values import storable
from coordinator_node.db.tables import LeaderboardRow


class DBLeaderboardRepository:
    """Reads and writes leaderboards; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def save(self, leaderboard_entries: list[dict[str, Any]], meta: dict[str, Any] | None = None) -> None:
        """Add a leaderboard, which is the latest from now on.

        Raises:
            ValueError: an entry holds what the database cannot, such as NaN.
        """
        row = LeaderboardRow(
            entries_jsonb=storable("leaderboard", "entries", leaderboard_entries),
            meta_jsonb=storable("leaderboard", "meta", meta or {}),
        )
        with committing(self._session):
            self._session.add(row)

    def get_latest(self) -> dict[str, Any] | None:
        """The newest leaderboard as {id, created_at, entries, meta}; None where there is none."""
        order = (col(LeaderboardRow.created_at), col(LeaderboardRow.id))
        found = newest(self._session, select(LeaderboardRow), *order, limit=1)
        if not found:
            return None
        row = found[0]
        return {
            "id": row.id,
            "created_at": row.created_at,
            "entries": row.entries_jsonb or [],
            "meta": row.meta_jsonb or {},
        }

    def clear(self) -> None:
        """Delete every leaderboard."""
        with committing(self._session):
            self._session.exec(delete(LeaderboardRow))
