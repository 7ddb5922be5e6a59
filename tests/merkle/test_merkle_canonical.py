"""One record, one hash: canonical bytes that survive the database, and what cannot be hashed."""

import hashlib
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.entities.prediction import CheckpointStatus, SnapshotRecord
from coordinator_node.merkle import canonical_snapshot_hash
from coordinator_node.merkle.canonical import canonical_bytes, canonical_hash, time_text

START = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)

SNAPSHOT = SnapshotRecord(
    id="s1",
    model_id="m1",
    period_start=START,
    period_end=START + timedelta(minutes=1),
    prediction_count=4,
    result_summary={"value": 0.25, "ic": None, "label": "Ünïcode €"},
    meta={"coverage": 1.0},
    created_at=START + timedelta(minutes=2),
)


def test_time_text():
    assert time_text(START) == "2026-01-02T03:04:05.000006Z"
    assert time_text(START.replace(microsecond=0)) == "2026-01-02T03:04:05.000000Z"
    assert time_text(datetime(999, 1, 1, tzinfo=UTC)) == "0999-01-01T00:00:00.000000Z"
    with pytest.raises(ValueError, match="no time zone"):
        time_text(START.replace(tzinfo=None))


def test_the_bytes_of_a_snapshot_are_these():
    expected = (
        '{"created_at":"2026-01-02T03:06:05.000006Z","id":"s1","meta":{"coverage":1},"model_id":"m1",'
        '"period_end":"2026-01-02T03:05:05.000006Z","period_start":"2026-01-02T03:04:05.000006Z","prediction_count":4,'
        '"result_summary":{"ic":null,"label":"Ünïcode €","value":0.25},"version":1}'
    )
    assert canonical_snapshot_hash(SNAPSHOT) == hashlib.sha256(expected.encode()).hexdigest()


def test_keys_are_in_order_however_many_there_are_and_in_whatever_order_they_came():
    for count in (1, 2, 32, 33, 500):
        document = {f"key {place * 7919 % count}": place / 4 for place in range(count)}
        backwards = dict(reversed(document.items()))
        assert canonical_bytes(document) == canonical_bytes(backwards) == rfc8785.dumps(document)


def test_rfc_8785_example():
    document = {
        "numbers": [333333333.33333329, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert canonical_bytes(document).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"id": "s2"},
        {"model_id": "m2"},
        {"period_start": START - timedelta(microseconds=1)},
        {"period_end": START},
        {"prediction_count": 5},
        {"result_summary": {**SNAPSHOT.result_summary, "value": math.nextafter(0.25, 1)}},
        {"result_summary": {**SNAPSHOT.result_summary, "ic": 0.0}},
        {"result_summary": {"value": 0.25}},
        {"meta": {}},
        {"created_at": START},
    ],
)
def test_any_change_changes_the_hash(change):
    assert canonical_snapshot_hash(replace(SNAPSHOT, **change)) != canonical_snapshot_hash(SNAPSHOT)


def test_what_means_the_same_hashes_the_same():
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    same = replace(
        SNAPSHOT,
        period_start=START.astimezone(elsewhere),
        result_summary=dict(reversed(SNAPSHOT.result_summary.items())),
        meta={"coverage": 1},
    )
    assert canonical_snapshot_hash(same) == canonical_snapshot_hash(SNAPSHOT)
    assert canonical_hash({"a": -0.0, "b": (1, 2)}) == canonical_hash({"b": [1.0, 2.0], "a": 0})
    assert canonical_hash({"status": CheckpointStatus.PENDING}) == canonical_hash({"status": "PENDING"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "result_summary.x is nan"),
        (math.inf, "result_summary.x is inf"),
        (10**400, "result_summary.x is an integer beyond the largest double"),
        ([0, {"y": math.nan}], "result_summary.x[1].y is nan"),
        ({1: 2}, "result_summary.x has the key 1, which is not text"),
        (Decimal("0.1"), "result_summary.x is a Decimal"),
        (b"x", "result_summary.x is a bytes"),
        (datetime(2026, 1, 1), "result_summary.x: time 2026-01-01T00:00:00 has no time zone"),  # noqa: DTZ001 -- naive on purpose
        ("\ud800", "result_summary.x holds half a surrogate pair"),
        ({"\ud800": 1}, "a key of document.result_summary.x holds half a surrogate pair"),
    ],
)
def test_what_has_no_one_text_is_refused_with_its_place(value, message):
    with pytest.raises(ValueError, match="snapshot s1 cannot be hashed") as raised:
        canonical_snapshot_hash(replace(SNAPSHOT, result_summary={"x": value}))
    assert message in str(raised.value)


def test_a_number_that_comes_back_as_another_type_hashes_the_same():
    assert canonical_bytes({"a": 2**53 - 1, "b": -(2**53) + 1}) == b'{"a":9007199254740991,"b":-9007199254740991}'
    for number in (1e16, 1e20, 1e21, 123456789012345680000.0, -1e300, 5e-324, 1.7976931348623157e308, 1e-6, 1e-7):
        whole = [int(number)] if number == int(number) else []
        assert {canonical_bytes({"x": same}) for same in [number, *whole]} == {rfc8785.dumps({"x": number})}


NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_any_document_is_written_as_the_reference_does_and_hashes_the_same_when_read_back(document):
    canonical = canonical_bytes(document)
    assert canonical == rfc8785.dumps(document)
    assert canonical_bytes(json.loads(canonical)) == canonical
    assert canonical_bytes(json.loads(json.dumps(document))) == canonical
