"""How fast records are stored, beside a COPY of the same rows. Run by `make bench-feed`.

Both write bursts of 1,000 one-minute candles of ten subjects, a transaction each, on one embedded server. The floor is
a COPY into an empty table with the same columns and indexes, of rows whose ids and JSON text were made before the clock
started; what is measured starts from the records as the worker has them, and moves the watermarks too. The two take
turns, on tables that grow alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, text

from coordinator_node.db.engine import make_engine, transaction
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.ids import new_id
from coordinator_node.local.postgres import running_postgres
from coordinator_node.services.feed_data.store import store_records

START = datetime(2026, 3, 1, tzinfo=UTC)
SUBJECTS = 10
TARGET = 0.5
COLUMNS = "id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb, meta_jsonb"


def burst(number: int, size: int) -> list[FeedRecord]:
    """The candles of the next `size / SUBJECTS` minutes."""
    records = []
    for position in range(size):
        minute = timedelta(minutes=(number * size + position) // SUBJECTS)
        price = 60_000.25 + position
        values = {"open": price, "high": price + 9.5, "low": price - 9.75, "close": price + 1.125, "volume": 12.375}
        subject = f"S{position % SUBJECTS}"
        records.append(FeedRecord("bench", subject, "candle", "1m", START + minute, values, {"trades": position}))
    return records


def rows(records: list[FeedRecord]) -> list[tuple[object, ...]]:
    """The same as COPY takes them."""
    return [
        (new_id(), r.source, r.subject, r.kind, r.granularity, r.ts_event, r.ts_ingested, *map(json.dumps, documents))
        for r in records
        for documents in [(r.values, r.meta)]
    ]


def copy_seconds(engine: Engine, records: list[FeedRecord]) -> float:
    """The time of one burst's COPY, with its commit."""
    prepared = rows(records)
    connection = engine.raw_connection()
    begun = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(f"COPY floor_records ({COLUMNS}) FROM STDIN") as copy:
        for row in prepared:
            copy.write_row(row)
    connection.commit()
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds


def store_seconds(engine: Engine, records: list[FeedRecord]) -> float:
    """The time of one burst as the feed worker stores it."""
    begun = time.perf_counter()
    with transaction(engine) as session:
        store_records(session, records, START)
    return time.perf_counter() - begun


def main() -> None:
    """Print the two rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=200)
    parser.add_argument("--size", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        Path(folder).chmod(0o755)
        with running_postgres(Path(folder) / "postgres") as url:
            engine = make_engine(url, "bench")
            migrate_engine(engine)
            with engine.begin() as connection:
                connection.execute(text("CREATE TABLE floor_records (LIKE feed_records INCLUDING ALL)"))
            floor, stored = [], []
            for number in range(given.bursts):
                records = burst(number, given.size)
                floor.append(copy_seconds(engine, records))
                stored.append(store_seconds(engine, records))
            engine.dispose()
    floor_rate, rate = (given.size / statistics.median(seconds) for seconds in (floor, stored))
    print(f"bursts of {given.size:,} records, {given.bursts} of them; median of a burst")
    print(f"COPY into the same indexes  {floor_rate:>9,.0f} records/s")
    print(f"store_records               {rate:>9,.0f} records/s")
    print(f"ratio                       {rate / floor_rate:>9.2f}   (target: at least {TARGET})")


if __name__ == "__main__":
    main()
