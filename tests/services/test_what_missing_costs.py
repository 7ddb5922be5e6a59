"""What failed and what was absent: counted once, in coverage, in the windows, and in who is ranked."""

from __future__ import annotations

from typing import Any

import builders
import pytest
from builders import at, one, rows
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.crunch_config import Aggregation, CrunchConfig
from coordinator_node.db.tables import PredictionSlotRow, ScheduledPredictionConfigRow
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.snapshot import SnapshotStage

BOARD = "SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC LIMIT 1"


@pytest.fixture
def fence(engine: Engine) -> LeaseFence:
    with Session(engine) as session:
        held = builders.lease(session)
        session.commit()
    return held


@pytest.fixture
def slots(engine: Engine, fence: LeaseFence) -> None:
    """Four slots: `good` scored 1 in all, `lazy` 4 in one and was away else, `broken` failed in all."""
    with Session(engine) as session:
        schedule = builders.add(session, ScheduledPredictionConfigRow(scope_key="BTC-60"))
        for model_id in ("good", "lazy", "broken"):
            builders.model(session, model_id)
        for n in range(4):
            row = builders.market_input(session)
            slot = PredictionSlotRow(
                prediction_config_id=schedule.id,
                slot_at=at(n),
                status="CALLED",
                input_id=row.id,
                deadline_at=at(n + 1),
                created_at=at(n),
            )
            builders.add(session, slot)
            times = {"performed_at": at(n), "resolvable_at": at(n + 60), "slot_id": slot.id}
            good = builders.prediction(session, "good", row.id, status="SCORED", **times)
            builders.score(session, good.id, 1.0)
            lazy = builders.prediction(session, "lazy", row.id, status="ABSENT" if n else "SCORED", **times)
            if not n:
                builders.score(session, lazy.id, 4.0)
            builders.prediction(session, "broken", row.id, status="FAILED", **times)
        session.commit()


def board(engine: Engine, fence: LeaseFence, **fields: Any) -> list[tuple[str, int | None, float | None]]:
    config = CrunchConfig(metrics=[], aggregation=Aggregation(**fields))
    SnapshotStage(engine, config, builders.settings_of()).run_once(at(100), fence)
    entries = one(engine, BOARD)
    return [(entry["model_id"], entry["rank"], entry["score"]["ranking"]["value"]) for entry in entries]


@pytest.mark.usefixtures("slots")
def test_by_default_the_missing_cost_nothing(engine: Engine, fence: LeaseFence) -> None:
    assert board(engine, fence) == [("lazy", 1, 4.0), ("good", 2, 1.0), ("broken", None, None)]
    meta = {row["model_id"]: row["meta_jsonb"] for row in rows(engine, "SELECT model_id, meta_jsonb FROM snapshots")}
    parts = ("failed_count", "absent_count", "missing_count", "due_count", "coverage")
    assert {model_id: [own[part] for part in parts] for model_id, own in meta.items()} == {
        "good": [0, 0, 0, 4, 1.0],
        "lazy": [0, 3, 3, 4, 0.25],
        "broken": [4, 0, 4, 4, 0.0],
    }
    assert meta["lazy"]["scopes"] == {"BTC-60": {"prediction_count": 1, "missing_count": 3, "value": 4.0}}


@pytest.mark.usefixtures("slots")
def test_a_missing_score_counts_for_each_that_is_missing(engine: Engine, fence: LeaseFence) -> None:
    assert board(engine, fence, missing_score=-1.0) == [
        ("good", 1, 1.0),
        ("lazy", 2, (4.0 - 3.0) / 4),
        ("broken", 3, -1.0),
    ]
    by_scope = one(engine, "SELECT scores_by_scope_jsonb FROM models WHERE id = 'lazy'")
    assert by_scope[0]["ranking"] == {"key": "score_recent", "value": 0.25, "direction": "desc"}


@pytest.mark.usefixtures("slots")
def test_with_too_few_predictions_a_model_is_shown_unranked_at_the_bottom(engine: Engine, fence: LeaseFence) -> None:
    assert board(engine, fence, min_predictions=2) == [("good", 1, 1.0), ("broken", None, None), ("lazy", None, 4.0)]


@pytest.mark.usefixtures("slots")
def test_a_missing_score_is_no_prediction(engine: Engine, fence: LeaseFence) -> None:
    found = board(engine, fence, min_predictions=1, missing_score=0.0)
    assert found == [("good", 1, 1.0), ("lazy", 2, 1.0), ("broken", None, 0.0)]


@pytest.mark.usefixtures("slots")
def test_the_missing_are_counted_once_and_not_before_their_time(engine: Engine, fence: LeaseFence) -> None:
    made = SnapshotStage(engine, CrunchConfig(metrics=[]), builders.settings_of())
    assert made.run_once(at(61), fence).counts["missed"] == 3  # broken at 60 and 61, lazy at 61
    assert made.run_once(at(100), fence).counts["missed"] == 4
    assert made.run_once(at(101), fence).counts["missed"] == 0
    total = "SELECT sum(CAST(meta_jsonb ->> 'missing_count' AS int)) FROM snapshots"
    assert one(engine, total) == 7
    assert one(engine, "SELECT count(*) FROM predictions WHERE snapshot_id IS NOT NULL") == 7


@pytest.mark.parametrize("fields", [{"missing_score": float("nan")}, {"min_predictions": -1}])
def test_settings_that_mean_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Aggregation(**fields)


def test_predictions_cannot_be_counted_without_a_window() -> None:
    with pytest.raises(ValidationError, match="min_predictions is counted in a window"):
        Aggregation(windows={}, min_predictions=1, ranking_key="value")
