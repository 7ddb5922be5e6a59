"""The boundary: what becomes a stored record and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
from feed_cases import NOON
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.feeds import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.errors import FeedError, MalformedRecordError
from coordinator_node.feeds.validation import to_feed_record

GOOD = FeedDataRecord("mine", "BTC", FeedDataKind.TICK, "1s", 1714564800, {"price": 60000.5}, {"venue": "x"})


def test_a_good_record_is_kept_whole() -> None:
    ingested = NOON.astimezone(timezone(timedelta(hours=-5)))
    assert to_feed_record(GOOD, ingested) == FeedRecord(
        source="mine",
        subject="BTC",
        kind="tick",
        granularity="1s",
        ts_event=datetime(2024, 5, 1, 12, tzinfo=UTC),
        values={"price": 60000.5},
        meta={"venue": "x"},
        ts_ingested=NOON,
    )


def test_a_kind_may_be_plain_text_and_is_stored_as_such() -> None:
    stored = to_feed_record(replace(GOOD, kind="candle"), NOON)
    assert type(stored.kind) is str
    assert FeedDataKind("tick") == "tick"


@pytest.mark.parametrize(
    ("ts_event", "expected"),
    [
        (1714564800, datetime(2024, 5, 1, 12, tzinfo=UTC)),
        (1714564800.25, NOON),
        (np.int64(1714564800), datetime(2024, 5, 1, 12, tzinfo=UTC)),
        (NOON.astimezone(timezone(timedelta(hours=9))), NOON),
    ],
)
def test_event_times_in_every_form(ts_event: object, expected: datetime) -> None:
    stored = to_feed_record(replace(GOOD, ts_event=ts_event), NOON).ts_event
    assert stored == expected
    assert stored.tzinfo is UTC


def test_numpy_numbers_decimals_and_nested_values_become_json() -> None:
    values = {
        "price": np.float32(1.5),
        "exact": Decimal("2.5"),
        "count": np.int64(3),
        "bids": [(np.float64(1.0), 2)],
        "none": None,
        "ok": True,
    }
    stored = to_feed_record(replace(GOOD, values=values), NOON).values
    assert json.loads(json.dumps(stored)) == {
        "price": 1.5,
        "exact": 2.5,
        "count": 3,
        "bids": [[1.0, 2]],
        "none": None,
        "ok": True,
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subject": ""}, "subject is '', expected a text"),
        ({"subject": "  "}, "subject is '  ', expected a text"),
        ({"subject": None}, "subject is None, expected a text"),
        ({"subject": "B\x00TC"}, "subject holds text that the database cannot store"),
        ({"source": ""}, "source is ''"),
        ({"granularity": "\x001s"}, "granularity holds text that the database cannot store"),
        ({"kind": "trade"}, "kind is 'trade', expected one of tick, candle, depth, funding"),
        ({"kind": None}, "kind is None"),
        ({"ts_event": math.nan}, "ts_event is nan, expected a finite number"),
        ({"ts_event": math.inf}, "ts_event is inf"),
        ({"ts_event": 1714564800000}, "not milliseconds"),
        ({"ts_event": datetime(2024, 5, 1)}, "has no time zone"),  # noqa: DTZ001 - the missing zone is the case
        ({"ts_event": "2024-05-01"}, "expected epoch seconds or an aware datetime"),
        ({"ts_event": True}, "expected epoch seconds or an aware datetime"),
        ({"values": {}}, "values is empty"),
        ({"values": None}, "values is a NoneType"),
        ({"values": {"price": math.nan}}, "values.price is nan"),
        ({"values": {"price": -math.inf}}, "values.price is -inf"),
        ({"values": {"price": np.float32("inf")}}, "values.price is inf"),
        ({"values": {"bids": [[1.0, math.nan]]}}, r"values\.bids\[0\]\[1\] is nan"),
        ({"values": {"price": Decimal("NaN")}}, "values.price is nan"),
        ({"values": {"price": object()}}, "a object is no JSON value"),
        ({"values": {"pri\x00ce": 2.0}}, "a key of values holds text that the database cannot store"),
        ({"metadata": {"note": "a\x00b"}}, "metadata.note holds text that the database cannot store"),
        ({"metadata": {"note": "\ud800"}}, "metadata.note holds text that the database cannot store"),
        ({"metadata": {"conf": math.nan}}, "metadata.conf is nan"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    record = replace(GOOD, **change)
    with pytest.raises(MalformedRecordError, match=reason) as refused:
        to_feed_record(record, NOON)
    assert refused.value.subject == record.subject
    assert repr(record.subject) in str(refused.value)
    assert isinstance(refused.value, FeedError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


def storable(value: object) -> bool:
    """What Postgres takes as JSON, asked of the text itself."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return "\\u0000" not in text.replace("\\\\", "")


@settings(max_examples=60, deadline=None)
@given(values=st.dictionaries(st.text("xyz", min_size=1, max_size=3), json_values, min_size=1, max_size=4))
def test_exactly_what_the_database_can_store_passes(values: dict[str, object]) -> None:
    record = replace(GOOD, values=values)
    if storable(values):
        assert to_feed_record(record, NOON).values == values
    else:
        with pytest.raises(MalformedRecordError):
            to_feed_record(record, NOON)
