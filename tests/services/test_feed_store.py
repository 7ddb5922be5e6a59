"""What is stored is what was heard, to the microsecond and the last digit."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from coordinator_node.db.engine import transaction
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.feed_data.store import read_watermark, store_records

SOURCES = itertools.count()
EARLIEST, LATEST = datetime(1970, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 - hypothesis takes naive bounds

TIMES = st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)
# Beyond, a whole float comes back as the integer that its text shows, which is another one.
NUMBERS = st.floats(-1e15, 1e15) | st.integers(-(2**60), 2**60)
DOCUMENTS = st.dictionaries(
    TEXTS, NUMBERS | TEXTS | st.booleans() | st.none() | st.lists(NUMBERS, max_size=2), max_size=3
)
ROWS = st.tuples(st.sampled_from(["BTC", 'it\'s \\ "x"\t{}']), TIMES, TIMES, DOCUMENTS, DOCUMENTS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bursts=st.lists(st.lists(ROWS, max_size=6), max_size=3))
def test_the_first_of_each_time_is_stored_exactly(engine: Engine, bursts: list[list[tuple]]) -> None:
    source = f"venue{next(SOURCES)}"
    expected: dict[tuple[str, datetime], FeedRecord] = {}
    for rows in bursts:
        records = [FeedRecord(source, s, "tick", "1s", at, values, meta, heard) for s, at, heard, values, meta in rows]
        new = {}
        for record in records:
            new.setdefault((record.subject, record.ts_event), record)
        with transaction(engine) as session:
            stored = store_records(session, records, datetime.now(UTC))
        assert stored == len(new.keys() - expected.keys())
        expected = new | expected
    query = text("SELECT subject, ts_event, ts_ingested, values_jsonb, meta_jsonb FROM feed_records WHERE source = :s")
    with engine.connect() as connection:
        found = {(row.subject, row.ts_event): row for row in connection.execute(query, {"s": source})}
    assert found.keys() == expected.keys()
    for key, record in expected.items():
        row = found[key]
        assert (row.ts_ingested, row.values_jsonb, row.meta_jsonb) == (record.ts_ingested, record.values, record.meta)
    for subject in {subject for subject, _ in expected}:
        newest = max(at for of, at in expected if of == subject)
        with transaction(engine) as session:
            assert read_watermark(session, source, subject, "tick", "1s") == newest
