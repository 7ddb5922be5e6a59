"""The long charts after a rescore: what was replaced is in no row, wherever sums are kept by time bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import builders
import pytest
from api_cases import ClientMaker
from builders import at
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.crunch_config import Aggregation, AggregationWindow, CrunchConfig
from coordinator_node.db.reports import predictions, snapshot_series, widths
from coordinator_node.db.series.mark import KEY, kept_span
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.rescore import Period, rescore
from coordinator_node.services.score import ScoreStage
from coordinator_node.services.snapshot import SnapshotStage

SLOTS = range(0, 10_800, 900)
PERIOD = Period(at(3000), at(7000))
END = at(10_800)
HALF_HOUR = timedelta(seconds=1800)
UNLUCKY = 13.0


def first_score(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    if prediction["value"] == UNLUCKY:
        raise ValueError("unlucky")
    return {"value": prediction["value"]}


def later_score(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    return {"value": -3 * prediction["value"]}


def config_of(function: Any) -> CrunchConfig:
    windows = {"score_recent": AggregationWindow(hours=1), "score_steady": AggregationWindow(hours=2)}
    return CrunchConfig(scoring_function=function, metrics=[], aggregation=Aggregation(windows=windows))


def output(model_id: str, slot: int) -> float:
    return UNLUCKY if (model_id, slot) == ("a", 4500) else slot / 900 + (model_id == "b") / 8


def rescored_history(engine: Engine) -> SnapshotStage:
    """Two models scored and counted slot by slot, with the leader keeping buckets; then a part of it scored again."""
    config, settings = config_of(first_score), builders.settings_of()
    score, snapshots = ScoreStage(engine, config, settings), SnapshotStage(engine, config, settings)
    with Session(engine) as session:
        for model_id in ("a", "b"):
            builders.model(session, model_id)
        fence = builders.lease(session)
        session.commit()
    for slot in SLOTS:
        with Session(engine) as session:
            truth = builders.market_input(session, actuals_jsonb={"profit": 0.0}, status="RESOLVED")
            for model_id in ("a", "b"):
                values = {"performed_at": at(slot), "resolvable_at": at(slot + 60)}
                values["inference_output_jsonb"] = {"value": output(model_id, slot)}
                builders.prediction(session, model_id, truth.id, **values)
            session.commit()
        while score.run_once(at(slot + 61)).counts:
            pass
        snapshots.run_once(at(slot + 61), fence)
    keep_all(engine, snapshots, fence)
    rescore(engine, config_of(later_score), settings, PERIOD, END, dry_run=False)
    return snapshots


def keep_all(engine: Engine, snapshots: SnapshotStage, fence: LeaseFence) -> None:
    """Passes of the leader, until one adds nothing to what is kept."""
    while True:
        with engine.connect() as connection:
            before = kept_span(connection, "value")
        snapshots.run_once(END + timedelta(minutes=5), fence)
        with engine.connect() as connection:
            if kept_span(connection, "value") == before:
                return


def value_of(model_id: str, slot: int) -> float:
    """What counts of a prediction after the rescore."""
    return output(model_id, slot) * (-3 if PERIOD.start <= at(slot + 60) < PERIOD.end else 1)


def mean(values: Iterable[float]) -> Any:
    known = list(values)
    return pytest.approx(sum(known) / len(known)) if known else None


def window(model_id: str, as_of: datetime, hours: int) -> Any:
    begins = as_of - timedelta(hours=hours)
    return mean(value_of(model_id, slot) for slot in SLOTS if begins < at(slot + 60) <= as_of)


def naive(by_bucket: bool) -> dict[str, dict[Any, Any]]:
    """By endpoint, {(model, time): what the row says}."""
    performed: dict[Any, list[int]] = defaultdict(list)
    ended: dict[Any, list[int]] = defaultdict(list)
    for model_id in ("a", "b"):
        for slot in SLOTS:
            begin, end = at(slot), at(slot + 60)
            if by_bucket:
                begin = begin - (begin - at(0)) % HALF_HOUR
                end = end + (at(0) - end) % HALF_HOUR
            performed[model_id, begin].append(slot)
            ended[model_id, end].append(slot)
    standings = {
        (model_id, moment): (window(model_id, moment, 1), window(model_id, moment, 2)) for model_id, moment in ended
    }
    return {
        "predictions": {
            (key[0], at(max(slots))): (mean(value_of(key[0], slot) for slot in slots), False)
            for key, slots in performed.items()
        },
        "models/metrics": {
            (key[0], at(max(slots) + 60)): (mean(value_of(key[0], slot) for slot in slots), len(slots))
            for key, slots in ended.items()
        },
        "models/global": standings,
        "models/params": standings,
    }


FIELDS = {
    "predictions": ("score_value", "score_failed"),
    "models/metrics": ("value", "prediction_count"),
    "models/global": ("score_recent", "score_steady"),
    "models/params": ("score_recent", "score_steady"),
}


@pytest.mark.parametrize("by_bucket", [False, True])
def test_charts_show_the_new_scores_whatever_is_kept(
    client_of: ClientMaker, engine: Engine, monkeypatch: pytest.MonkeyPatch, by_bucket: bool
) -> None:
    if by_bucket:
        for module in (predictions, snapshot_series, widths):
            monkeypatch.setattr(module, "MOST_POINTS", 8)
    snapshots = rescored_history(engine)
    client = client_of(config_of(later_score))

    def told(path: str) -> dict[Any, Any]:
        rows = client.rows(f"/reports/{path}", start=at(0).isoformat(), end=END.isoformat())
        found = {
            (row["model_id"], datetime.fromisoformat(row["performed_at"] + "+00:00")): tuple(
                row[name] for name in FIELDS[path]
            )
            for row in rows
        }
        assert len(found) == len(rows)
        return found

    expected = naive(by_bucket)
    assert {path: told(path) for path in FIELDS} == expected
    keep_all(engine, snapshots, LeaseFence("test-lease", 1))
    with engine.connect() as connection:
        kept = kept_span(connection, "value")
    assert kept is not None
    assert kept.begin <= at(0)
    assert kept.end >= END
    assert {path: told(path) for path in FIELDS} == expected
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM engine_state WHERE key = :key"), {"key": KEY})
    assert {path: told(path) for path in FIELDS} == expected
    for row in client.rows("/reports/models/summary", start=at(0).isoformat(), end=PERIOD.end.isoformat()):
        assert row["value"] == value_of(row["model_id"], 6300)


def test_what_a_rescore_does_not_reach_stays_kept(engine: Engine) -> None:
    rescored_history(engine)
    with engine.connect() as connection:
        kept = kept_span(connection, "value")
    assert kept is not None
    assert (kept.begin, kept.end) == (at(6600), END)
