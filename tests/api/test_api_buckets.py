"""Long series: one row a bucket, compared with the same summed up naively."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_cases import NOW, SCHEDULE, Client, prediction, schedule, score, stage, store
from hypothesis import example, given
from hypothesis import strategies as st
from report_rows import keep_buckets
from sqlalchemy import Engine

from coordinator_node.db.reports import predictions, widths
from coordinator_node.db.reports.widths import MOST_POINTS, MOST_ROWS, bucket_width

SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@example(span=timedelta(days=7), series=50)
@given(
    span=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=40_000)),
    series=st.integers(min_value=1, max_value=2 * MOST_ROWS),
)
def test_buckets_are_as_wide_as_it_takes_and_hardly_wider(span: timedelta, series: int) -> None:
    width = bucket_width(span, series)
    # The worst the alignment to the epoch can do is one bucket more than the span is widths long.
    met = span // width + 2 if span % width else span // width + 1
    assert met <= max(2, MOST_POINTS)
    if series <= MOST_ROWS // 2:
        assert met * series <= MOST_ROWS
    assert width >= SECOND
    assert width % SECOND == timedelta(0)


def test_no_more_than_500_points_stay_single_rows(client: Client, engine: Engine) -> None:
    stage(engine, "m1")
    store(engine, *(prediction("m1", NOW - age * SECOND) for age in range(500)))
    times = [row["performed_at"] for row in client.rows("/reports/predictions")]
    assert len(times) == 500
    assert times == sorted(times)
    store(engine, prediction("m1", NOW - 500 * SECOND))
    rows = client.rows("/reports/predictions")
    assert len(rows) == 251
    assert [row["performed_at"] for row in rows][-2:] == ["2026-03-01T11:59:59", "2026-03-01T12:00:00"]
    assert len(client.rows("/reports/predictions", limit=1000)) == 501
    assert len(client.rows("/reports/predictions", start=(NOW - 99 * SECOND).isoformat())) == 100


def random_rows(engine: Engine) -> list[dict[str, Any]]:
    """Predictions of two models, two scopes and two schedules, stored and returned as plain values."""
    chosen = random.Random(7)
    kept: list[dict[str, Any]] = []
    stage(engine, "m1", "m2")
    store(engine, schedule("second"))
    rows: list[Any] = []
    scores: list[Any] = []
    for number in range(400):
        status = chosen.choices(["SCORED", "FAILED", "PENDING"], [8, 1, 1])[0]
        values = {
            "id": f"{number:04}",
            "scope_key": chosen.choice(["BTC-60", "ETH-60"]),
            "prediction_config_id": chosen.choice([SCHEDULE, "second"]),
            "scope_jsonb": chosen.choice([{"subject": "BTC"}] * 9 + [{"subject": "BTC", "round": 1}]),
            "status": status,
            "failed_reason": chosen.choice(["timeout", "raised"]) if status == "FAILED" else None,
            "horizon": timedelta(seconds=chosen.choices([60, 90], [15, 1])[0]),
        }
        at = NOW - timedelta(microseconds=chosen.randrange(3_600_000_000))
        row = prediction(chosen.choice(["m1", "m2"]), at, **values)
        value = chosen.uniform(-1, 1)
        scored_at = NOW + SECOND * chosen.choice([1, 1, 1, 2])
        rows.append(row)
        if status == "SCORED":
            scores.append(score(row, result_jsonb={"value": value}, scored_at=scored_at))
        kept.append(
            {
                "model_id": row.model_id,
                "prediction_config_id": row.prediction_config_id,
                "param": row.scope_key,
                "performed_at": at,
                "scope": row.scope_jsonb,
                "score_value": value if status == "SCORED" else None,
                "score_failed": status == "FAILED",
                "score_failed_reason": row.failed_reason,
                "scored_at": scored_at.isoformat() if status == "SCORED" else None,
                "horizon": (row.resolvable_at - row.performed_at).total_seconds(),
            }
        )
    store(engine, *rows, *scores)
    return kept


def same_or_none(values: Iterable[Any]) -> Any:
    first, *others = values
    return first if all(other == first for other in others) else None


def naive_buckets(rows: list[dict[str, Any]], width: timedelta) -> dict[tuple[Any, ...], dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        bucket = (row["performed_at"] - EPOCH) // width
        groups[row["model_id"], row["param"], row["prediction_config_id"], bucket].append(row)
    told = {}
    for key, group in groups.items():
        last = max(row["performed_at"] for row in group)
        values = [row["score_value"] for row in group if row["score_value"] is not None]
        told[(*key[:3], last.replace(tzinfo=None).isoformat())] = {
            "score_value": pytest.approx(sum(values) / len(values)) if values else None,
            **{
                name: same_or_none(row[name] for row in group)
                for name in ("scope", "score_failed", "score_failed_reason", "scored_at", "horizon")
            },
        }
    return told


@pytest.mark.parametrize("kept", ["nothing", "all", "a part"])
@pytest.mark.parametrize(("points", "minutes"), [(21, 5), (6, 15)])
def test_buckets_hold_what_their_rows_hold(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch, kept: str, points: int, minutes: int
) -> None:
    for module in (predictions, widths):
        monkeypatch.setattr(module, "MOST_POINTS", 31)
        monkeypatch.setattr(module, "MOST_ROWS", 8 * points)
    expected = naive_buckets(random_rows(engine), timedelta(minutes=minutes))
    if kept != "nothing":
        keep_buckets(engine, until=NOW if kept == "all" else NOW - timedelta(minutes=20))
    rows = client.rows("/reports/predictions")
    found = {
        (row["model_id"], row["param"], row["prediction_config_id"], row["performed_at"]): {
            name: row[name]
            for name in ("score_value", "scope", "score_failed", "score_failed_reason", "scored_at", "horizon")
        }
        for row in rows
    }
    assert found == expected
    assert len(found) == len(rows) <= 8 * points
    assert [row["performed_at"] for row in rows] == sorted(row["performed_at"] for row in rows)
    mixed = [row for row in rows if row["scope"] is None]
    assert mixed
    assert all(row["subject"] is None and row["step"] is None for row in mixed)


def test_more_series_than_rows_are_still_bounded(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (predictions, widths):
        monkeypatch.setattr(module, "MOST_ROWS", 10)
    stage(engine, "m1")
    store(engine, *(prediction("m1", NOW - age * SECOND, scope_key=f"scope {age}") for age in range(25)))
    rows = client.rows("/reports/predictions")
    assert [row["param"] for row in rows] == [f"scope {age}" for age in reversed(range(10))]
