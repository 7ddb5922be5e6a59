"""What tests of the predict stage share: prices to predict from, and questions to the database that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from coordinator_node.db.engine import transaction
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.feed_data.store import store_records


def store_prices(engine: Engine, until: datetime, count: int = 30) -> None:
    records = [
        FeedRecord("simulated", "BTC", "tick", "1s", until - timedelta(seconds=age), {"price": 100.0 + age})
        for age in range(count)
    ]
    with transaction(engine) as session:
        store_records(session, records, until)


def rows(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query)).all())


async def until_rows(engine: Engine, query: str, enough: Callable[[list[Any]], bool]) -> list[Any]:
    for _ in range(600):  # far longer than it takes, for a machine that runs other things beside this
        found = await asyncio.to_thread(rows, engine, query)
        if enough(found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"never came: {query}: {found}")


CALLED = "SELECT slot_at FROM prediction_slots WHERE status = 'CALLED' ORDER BY slot_at"
UNBALANCED = """
    SELECT s.id FROM prediction_slots s CROSS JOIN models m
    LEFT JOIN predictions p ON p.slot_id = s.id AND p.model_id = m.id
    WHERE s.status = 'CALLED' AND s.slot_at > m.created_at AND NOT starts_with(m.id, '__ensemble_')
    GROUP BY s.id, m.id HAVING count(p.id) <> 1
"""


async def called(engine: Engine, slots: int) -> None:
    await until_rows(engine, CALLED, lambda found: len(found) >= slots)
