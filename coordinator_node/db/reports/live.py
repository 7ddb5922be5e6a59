"""What clients are told live: the newest leaderboard, checkpoints and their way, and how far the feeds have come."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

MOST_CHECKPOINTS = 20
MOST_FEEDS = 1000

_LEADERBOARD = "SELECT id, created_at FROM leaderboards ORDER BY created_at DESC, id DESC LIMIT 1"
_CHECKPOINTS = """
    SELECT id, status, period_start, period_end, tx_hash FROM checkpoints
    ORDER BY period_end DESC, created_at DESC, id DESC LIMIT %(most)s
"""
_FEEDS = """
    SELECT source, subject, kind, granularity, last_event_ts AS watermark_ts FROM feed_ingestion_state
    ORDER BY source, subject, kind, granularity LIMIT %(most)s
"""


async def newest_leaderboards(connection: psycopg.AsyncConnection) -> list[dict[str, Any]]:
    """The newest leaderboard's id and time; empty before the first."""
    return await _rows(connection, _LEADERBOARD)


async def newest_checkpoints(connection: psycopg.AsyncConnection) -> list[dict[str, Any]]:
    """The checkpoints whose periods end last, the oldest of them first."""
    return (await _rows(connection, _CHECKPOINTS, most=MOST_CHECKPOINTS))[::-1]


async def feed_watermarks(connection: psycopg.AsyncConnection) -> list[dict[str, Any]]:
    """Every feed and its watermark."""
    return await _rows(connection, _FEEDS, most=MOST_FEEDS)


async def _rows(connection: psycopg.AsyncConnection, statement: str, **values: Any) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchall()
