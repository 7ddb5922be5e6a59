"""How models stood over time: the endpoints over snapshots, compared with a naive transcription of what they mean."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_cases import NOW, Client, ClientMaker, model, store
from report_rows import keep_buckets
from sqlalchemy import Engine, text

from coordinator_node.crunch_config import Aggregation, AggregationWindow, CrunchConfig, ScheduledPrediction
from coordinator_node.db.engine import transaction
from coordinator_node.db.reports import snapshot_series, widths
from coordinator_node.db.series.mark import keep_only_after
from coordinator_node.db.tables import SnapshotRow
from coordinator_node.services.ranking import window_means

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENSEMBLE = "__ensemble_all__"
MODELS = ("m1", "m2", ENSEMBLE)
CONFIG = CrunchConfig(
    metrics_window_hours=1,
    aggregation=Aggregation(
        windows={"score_recent": AggregationWindow(hours=3), "long": AggregationWindow(hours=26)},
        missing_score=-0.25,
    ),
    scheduled_predictions=[
        ScheduledPrediction(scope_key=key, scope={"subject": key[:3]}, resolve_horizon_seconds=60)
        for key in ("BTC-60", "ETH-60")
    ],
)


def random_snapshots(count: int, over: timedelta, seed: int = 11) -> list[SnapshotRow]:
    """Snapshots of three models at odd moments of the time before NOW, some on bounds of buckets, some of others."""
    chosen = random.Random(seed)
    rows = []
    for number in range(count):
        end = NOW - timedelta(seconds=chosen.randrange(int(over.total_seconds())))
        if chosen.random() < 0.2:
            end = end.replace(minute=0, second=0)
        predictions = chosen.choice([0, 1, 4])
        value = chosen.uniform(-1, 1)
        summary: dict[str, Any] = {"ic": chosen.choice([None, chosen.uniform(-1, 1)]), "name": "text"}
        scopes = {
            scope: {"prediction_count": predictions, "missing_count": chosen.choice([0, 2]), "value": value + 1}
            for scope in chosen.sample(["BTC-60", "ETH-60"], chosen.choice([1, 2]))
        }
        own = chosen.random() < 0.8
        rows.append(
            SnapshotRow(
                id=f"snapshot-{number:05d}",
                model_id=chosen.choice(MODELS),
                period_start=end - MINUTE,
                period_end=end,
                prediction_count=predictions,
                result_summary_jsonb={**summary, **({"value": value} if predictions else {})},
                meta_jsonb={"missing_count": chosen.choice([0, 1, 3]), "scopes": scopes},
                created_at=end,
                cycle_id=f"cycle-{number}" if own else None,
            )
        )
    return rows


def stored(engine: Engine, rows: list[SnapshotRow]) -> list[SnapshotRow]:
    store(engine, *(model(model_id) for model_id in MODELS))
    store(engine, *(SnapshotRow(**row.model_dump()) for row in rows))
    return rows


def as_of_moments(
    rows: list[SnapshotRow], width: timedelta | None, start: datetime, end: datetime, *, by_scope: bool
) -> Iterator[tuple[str, str, datetime]]:
    found = set()
    for row in rows:
        if start <= row.period_end <= end:
            bucket = row.period_end if width is None else EPOCH - (EPOCH - row.period_end) // width * width
            scopes = (row.meta_jsonb or {})["scopes"] if by_scope and row.cycle_id else {} if by_scope else {"": None}
            found |= {(row.model_id, scope, min(bucket, end)) for scope in scopes}
    yield from found


def naive_mean(rows: list[SnapshotRow], model_id: str, scope: str, as_of: datetime, hours: int) -> float | None:
    total = weight = 0.0
    for row in rows:
        if row.model_id != model_id or not as_of - hours * HOUR < row.period_end <= as_of:
            continue
        meta = (row.meta_jsonb or {}) if row.cycle_id else {}
        if scope:
            part = meta.get("scopes", {}).get(scope)
            count, missing, value = (
                (part["prediction_count"], part["missing_count"], part["value"]) if part else (0, 0, None)
            )
        else:
            count, missing = row.prediction_count, meta.get("missing_count", 0)
            value = (row.result_summary_jsonb or {}).get("value")
        if value is not None:
            total, weight = total + value * count, weight + count
        total, weight = total - 0.25 * missing, weight + missing
    return total / weight if weight else None


def naive_summary(rows: list[SnapshotRow], model_id: str, as_of: datetime) -> dict[str, Any]:
    begin = as_of - CONFIG.metrics_window_hours * HOUR
    known = [r for r in rows if r.model_id == model_id and begin < r.period_end <= as_of and r.prediction_count]
    latest = max(known, key=lambda row: (row.period_end, row.created_at, row.id), default=None)
    summary = (latest.result_summary_jsonb or {}) if latest else {}
    return {name: value for name, value in summary.items() if name != "name"}


def expected(
    rows: list[SnapshotRow], width: timedelta | None, start: datetime, end: datetime, *, by_scope: bool = False
) -> dict[Any, Any]:
    return {
        (model_id, scope, as_of.replace(tzinfo=None).isoformat()): {
            **({} if by_scope else naive_summary(rows, model_id, as_of)),
            "score_recent": pytest.approx(naive_mean(rows, model_id, scope, as_of, 3)),
            "long": pytest.approx(naive_mean(rows, model_id, scope, as_of, 26)),
        }
        for model_id, scope, as_of in as_of_moments(rows, width, start, end, by_scope=by_scope)
    }


def told(client: Client, path: str, **params: Any) -> dict[Any, Any]:
    rows = client.rows(f"/reports/models/{path}", include_ensembles="true", **params)
    assert [row["performed_at"] for row in rows] == sorted(row["performed_at"] for row in rows)
    found = {(r["model_id"], r.get("scope_key", ""), r["performed_at"]): r["score_metrics"] for r in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("path", ["global", "params"])
def test_single_rows_have_their_windows_as_of_then(
    client_of: ClientMaker, engine: Engine, path: str, kept: bool
) -> None:
    rows = stored(engine, random_snapshots(300, 60 * HOUR))
    if kept:
        keep_buckets(engine)
    start = NOW - 7 * HOUR - 13 * MINUTE
    found = told(client_of(CONFIG), path, start=start.isoformat(), end=NOW.isoformat())
    assert found == expected(rows, None, start, NOW, by_scope=path == "params")


@pytest.mark.parametrize("kept", ["nothing", "all", "the older part", "the newer part"])
@pytest.mark.parametrize(
    ("path", "hours", "points", "width"),
    [
        ("global", 23, 30, HOUR),
        ("global", 23, 15, 2 * HOUR),
        ("params", 23, 15, 2 * HOUR),
        ("params", 2, 62, 2 * MINUTE),
    ],
)
def test_buckets_have_their_windows_as_of_their_end(
    client_of: ClientMaker,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    hours: int,
    points: int,
    width: timedelta,
    kept: str,
) -> None:
    for module in (widths, snapshot_series):
        monkeypatch.setattr(module, "MOST_POINTS", points)
    # So dense that a model has more points than may be shown one by one.
    rows = stored(engine, random_snapshots(600, 3 * HOUR if width < HOUR else 40 * HOUR))
    if kept != "nothing":
        keep_buckets(engine, until=NOW - 25 * MINUTE if kept == "the older part" else NOW)
    if kept == "the newer part":
        with engine.begin() as connection:
            keep_only_after(connection, NOW - hours * HOUR / 2 - 25 * MINUTE, NOW)
    start, end = NOW - hours * HOUR - 13 * MINUTE, NOW - 17 * MINUTE - timedelta(microseconds=1)
    found = told(client_of(CONFIG), path, start=start.isoformat(), end=end.isoformat())
    assert found == expected(rows, width, start, end, by_scope=path == "params")


@pytest.mark.parametrize(("kept", "told_ic"), [('{"ic": 7}', 7.0), (None, 0.5)])
def test_the_latest_summary_is_looked_up_where_a_bucket_does_not_keep_it(
    client_of: ClientMaker, engine: Engine, monkeypatch: pytest.MonkeyPatch, kept: str | None, told_ic: float
) -> None:
    for module in (widths, snapshot_series):
        monkeypatch.setattr(module, "MOST_POINTS", 30)
    rows = random_snapshots(600, 40 * HOUR)
    for row in rows:
        row.result_summary_jsonb = {"ic": 0.5}
    stored(engine, rows)
    keep_buckets(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE snapshot_buckets SET latest_jsonb = CAST(:kept AS jsonb)"), {"kept": kept})
    found = client_of(CONFIG).rows("/reports/models/global", end=(NOW - HOUR).isoformat())
    assert {row["ic"] for row in found if row["ic"] is not None} == {told_ic}


@pytest.mark.parametrize(("most_read", "width"), [(79, 5 * MINUTE), (80, 5 * SECOND)])
def test_how_wide_buckets_are_follows_from_the_scopes_of_snapshots(
    client_of: ClientMaker, engine: Engine, monkeypatch: pytest.MonkeyPatch, most_read: int, width: timedelta
) -> None:
    for module in (widths, snapshot_series):
        monkeypatch.setattr(module, "MOST_POINTS", 10)
        monkeypatch.setattr(module, "MOST_POINTS_READ", most_read)
    rows = random_snapshots(40, HOUR)
    for number, row in enumerate(rows):
        row.period_end = NOW - (number + 1) * SECOND
        row.period_start, row.model_id, row.cycle_id = row.period_end - SECOND, "m1", f"cycle {number}"
        part = {"prediction_count": 4, "missing_count": 0, "value": number / 7}
        row.meta_jsonb = {"missing_count": 0, "scopes": {"BTC-60": part, "ETH-60": part}}
    stored(engine, rows)
    # Those that count no scope are no points, whatever stands in its place.
    odd: list[Any] = [{}, [], ["BTC-60"], "BTC-60", 7, None]
    for number, scopes in enumerate(odd):
        at = NOW - (number + 1) * SECOND
        meta = {"missing_count": 0, "scopes": scopes}
        store(
            engine,
            SnapshotRow(
                id=f"odd {number}",
                model_id="m1",
                period_start=at - SECOND,
                period_end=at,
                created_at=at,
                meta_jsonb=meta,
                cycle_id=f"odd {number}",
            ),
        )
    start = NOW - MINUTE
    found = told(client_of(CONFIG), "params", start=start.isoformat(), end=NOW.isoformat())
    assert found == expected(rows, width, start, NOW, by_scope=True)


def test_a_standing_is_the_leaderboards_to_the_last_digit(client_of: ClientMaker, engine: Engine) -> None:
    rows = stored(engine, random_snapshots(200, 30 * HOUR))
    (newest,) = {max(row.period_end for row in rows if row.model_id == "m1")}
    with transaction(engine) as session:
        means = window_means(session, CONFIG.aggregation, newest)
    (row,) = [
        row
        for row in client_of(CONFIG).rows("/reports/models/global", projectIds="m1")
        if row["performed_at"] == newest.replace(tzinfo=None).isoformat()
    ]
    assert (row["score_recent"], row["long"]) == (means.get(("m1", "score_recent")), means.get(("m1", "long")))


def test_the_rows_of_charts(client_of: ClientMaker, engine: Engine) -> None:
    end = NOW - HOUR
    store(engine, model("m1"), model("m2"), model(ENSEMBLE))
    values = {"period_start": end - MINUTE, "period_end": end, "created_at": end, "prediction_count": 4}
    summary = {"value": 0.5, "ic": None, "rank": 3, "score_success": True, "success": True}
    meta = {"missing_count": 0, "scopes": {"ETH-60": {"prediction_count": 4, "missing_count": 0, "value": 0.5}}}
    for number, model_id in enumerate(("m1", ENSEMBLE)):
        store(
            engine,
            SnapshotRow(
                id=f"s{number}",
                model_id=model_id,
                result_summary_jsonb=summary,
                meta_jsonb=meta,
                cycle_id="c",
                **values,
            ),
        )
    client = client_of(CONFIG)
    windows = {"score_recent": 0.5, "long": 0.5}
    ranking = {"key": "score_recent", "value": 0.5, "direction": "desc"}
    common = {"subject": None, "asset": None, "horizon": 60, "param": None, "step": 15}
    moment = {"model_id": "m1", "performed_at": "2026-03-01T11:00:00"}
    numbers = {"value": 0.5, "ic": None, "rank": 3}
    unknown = dict.fromkeys(CONFIG.metrics)
    assert client.rows("/reports/models/global") == [
        {
            **unknown,
            **moment,
            **common,
            **windows,
            **numbers,
            "score_metrics": windows | numbers,
            "score_ranking": ranking,
        }
    ]
    assert client.rows("/reports/models/params") == [
        {
            **moment,
            **windows,
            "score_metrics": windows,
            "score_ranking": ranking,
            "scope_key": "ETH-60",
            "scope": {"subject": "ETH", "step_seconds": 15, "resolve_horizon_seconds": 60},
            "subject": "ETH",
            "asset": "ETH",
            "horizon": 60,
            "param": "ETH-60",
            "step": 15,
        }
    ]
    snapshot = {
        **unknown,
        **moment,
        **common,
        **numbers,
        "period_start": "2026-03-01T10:59:00+00:00",
        "period_end": "2026-03-01T11:00:00+00:00",
        "prediction_count": 4,
    }
    for path in ("metrics", "summary"):
        assert client.rows(f"/reports/models/{path}") == [snapshot]
        shown = client.rows(f"/reports/models/{path}", include_ensembles="true")
        assert [row["model_id"] for row in shown] == [ENSEMBLE, "m1"]
        assert [row["model_id"] for row in client.rows(f"/reports/models/{path}", projectIds=ENSEMBLE)] == [ENSEMBLE]


@pytest.mark.parametrize(("kept", "most_names"), [(False, 100), (True, 100), (False, 0), (True, 0)])
def test_a_bucket_of_snapshots_holds_weighted_means(
    client_of: ClientMaker, engine: Engine, monkeypatch: pytest.MonkeyPatch, kept: bool, most_names: int
) -> None:
    monkeypatch.setattr(snapshot_series, "MOST_NAMES", most_names)
    for module in (widths, snapshot_series):
        monkeypatch.setattr(module, "MOST_POINTS", 30)
    rows = stored(engine, random_snapshots(600, 40 * HOUR))
    if kept:
        keep_buckets(engine)
    start, width = NOW - 25 * HOUR - MINUTE, HOUR
    buckets: dict[Any, list[SnapshotRow]] = {}
    for row in rows:
        if start <= row.period_end <= NOW:
            bucket = (EPOCH - row.period_end) // width
            buckets.setdefault((row.model_id, bucket), []).append(row)
    want = {}
    for (model_id, _), own in buckets.items():
        last = max(row.period_end for row in own).replace(tzinfo=None).isoformat()
        want[model_id, last] = {"prediction_count": sum(row.prediction_count for row in own)}
        for name in ("value", "ic"):
            have = [
                ((r.result_summary_jsonb or {})[name], max(r.prediction_count, 1))
                for r in own
                if (r.result_summary_jsonb or {}).get(name) is not None
            ]
            if have:
                mean = sum(value * weight for value, weight in have) / sum(weight for _, weight in have)
                want[model_id, last][name] = pytest.approx(mean)
    found = client_of(CONFIG).rows("/reports/models/metrics", start=start.isoformat(), include_ensembles="true")
    assert {
        (row["model_id"], row["performed_at"]): {
            name: row[name] for name in ("prediction_count", "value", "ic") if row.get(name) is not None
        }
        for row in found
    } == want


def test_a_number_that_only_old_snapshots_hold_is_in_their_buckets(
    client_of: ClientMaker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (widths, snapshot_series):
        monkeypatch.setattr(module, "MOST_POINTS", 30)
    rows = random_snapshots(600, 40 * HOUR)
    oldest = min((row for row in rows if row.prediction_count and row.model_id == "m1"), key=lambda row: row.period_end)
    oldest.result_summary_jsonb = {"bygone": 0.25}
    stored(engine, rows)
    found = client_of(CONFIG).rows("/reports/models/metrics")
    assert len(found) < 600
    assert {row["bygone"] for row in found if "bygone" in row} == {0.25}


def test_summary_is_the_latest_in_the_range(client_of: ClientMaker, engine: Engine) -> None:
    rows = stored(engine, random_snapshots(100, 30 * HOUR))
    end = NOW - 10 * HOUR
    found = client_of(CONFIG).rows("/reports/models/summary", end=end.isoformat())
    assert {row["model_id"]: row["period_end"] for row in found} == {
        model_id: max(r.period_end for r in rows if r.model_id == model_id and r.period_end <= end).isoformat()
        for model_id in ("m1", "m2")
    }
