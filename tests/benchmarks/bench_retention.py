"""What it costs to store, keep and forget feed records beside millions of older ones. Run by `make bench-retention`.

Forgetting is measured twice: by the batches that the feed worker deletes, and as detaching and dropping a month of a
table with the same columns and indexes that is partitioned by month. A day of 100 subjects at one record a second is
8,640,000 rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, text

from coordinator_node.db.engine import make_engine, transaction
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.local.postgres import running_postgres
from coordinator_node.services.feed_data.service import PRUNE_RECORDS
from coordinator_node.services.feed_data.store import prune_records, store_records

START = datetime(2026, 3, 1, tzinfo=UTC)
SUBJECTS = 20
BURSTS = 50
BURST = 1000
INDEXES = {
    "uq_feed_records_event": "CREATE UNIQUE INDEX {index} ON {table} (source, subject, kind, granularity, ts_event)",
    "ix_feed_records_ts_event": "CREATE INDEX {index} ON {table} (ts_event)",
}
FILL = """
    INSERT INTO {table} (id, source, subject, kind, granularity, ts_event, ts_ingested, values_jsonb, meta_jsonb)
    SELECT gen_random_uuid()::text, 'bench', 'S' || subject, 'tick', '1s', at, at,
           jsonb_build_object('price', 60000 + subject + extract(epoch FROM at)::bigint % 997), '{{}}'
    FROM generate_series(CAST(:start AS timestamptz), CAST(:start AS timestamptz) + make_interval(secs => :seconds - 1),
                         interval '1 second') AS at, generate_series(1, :subjects) AS subject
"""


def seconds_of(work: Callable[[], object]) -> float:
    """How long it took."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def execute(engine: Engine, statement: str, **values: object) -> None:
    """One statement in a transaction of its own."""
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def fill(engine: Engine, rows: int) -> None:
    """So many records of SUBJECTS subjects, one each a second from START on."""
    for index in INDEXES:
        execute(engine, f"DROP INDEX {index}")
    seconds = rows // SUBJECTS
    execute(engine, FILL.format(table="feed_records"), start=START, seconds=seconds, subjects=SUBJECTS)
    for index, statement in INDEXES.items():
        execute(engine, statement.format(index=index, table="feed_records"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE feed_records"))
        connection.execute(text("CHECKPOINT"))


def store(engine: Engine, after: datetime) -> None:
    """Bursts as the feed worker stores them."""
    for number in range(BURSTS):
        moments = (after + timedelta(seconds=number * BURST // SUBJECTS + s) for s in range(BURST // SUBJECTS))
        records = [
            FeedRecord("bench", f"S{subject + 1}", "tick", "1s", moment, {"price": 60_000.5}, {})
            for moment in moments
            for subject in range(SUBJECTS)
        ]
        with transaction(engine) as session:
            store_records(session, records, after)


def prune(engine: Engine, rows: int) -> None:
    """The oldest rows, in the batches of the feed worker."""
    cutoff = START + timedelta(seconds=rows // SUBJECTS)
    deleted = PRUNE_RECORDS
    while deleted == PRUNE_RECORDS:
        with transaction(engine) as session:
            deleted = prune_records(session, cutoff, PRUNE_RECORDS)


def make_month(engine: Engine, rows: int) -> None:
    """A table like feed_records, partitioned by month, with so many rows in one month."""
    execute(engine, "CREATE TABLE months (LIKE feed_records INCLUDING DEFAULTS) PARTITION BY RANGE (ts_event)")
    execute(engine, "CREATE TABLE month_03 PARTITION OF months FOR VALUES FROM ('2026-03-01Z') TO ('2026-04-01Z')")
    values = {"start": START, "seconds": rows // SUBJECTS, "subjects": SUBJECTS}
    execute(engine, FILL.format(table="months"), **values)
    for index, statement in INDEXES.items():
        execute(engine, statement.format(index=f"{index}_months", table="months"))


def drop_month(engine: Engine) -> None:
    """What retention would do with a month."""
    execute(engine, "ALTER TABLE months DETACH PARTITION month_03")
    execute(engine, "DROP TABLE month_03")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="records that are there before")
    parser.add_argument("--old", type=int, default=500_000, help="records that are to be forgotten")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-retention-") as folder:
        Path(folder).chmod(0o755)
        with running_postgres(Path(folder) / "postgres") as url:
            engine = make_engine(url, "bench")
            migrate_engine(engine)
            print(f"{given.rows:>12,} records stored at once in {seconds_of(lambda: fill(engine, given.rows)):.1f} s")
            with engine.connect() as connection:
                size = connection.execute(text("SELECT pg_total_relation_size('feed_records')")).scalar_one()
            print(f"{size / given.rows:>12.0f} bytes a record, with its indexes")
            end = START + timedelta(seconds=given.rows // SUBJECTS)
            stored = seconds_of(lambda: store(engine, end))
            print(f"{BURSTS * BURST / stored:>12,.0f} records a second stored by the feed worker beside them")
            pruned = seconds_of(lambda: prune(engine, given.old))
            print(f"{given.old / pruned:>12,.0f} records a second deleted, in batches of {PRUNE_RECORDS:,}")
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                vacuum = text("VACUUM feed_records")
                print(f"{seconds_of(lambda: connection.execute(vacuum)):>12.1f} s to clean up behind that (VACUUM)")
            make_month(engine, given.old)
            print(f"{seconds_of(lambda: drop_month(engine)) * 1000:>12.0f} ms to detach and drop them as a partition")
            engine.dispose()


if __name__ == "__main__":
    main()
