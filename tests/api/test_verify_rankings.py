"""True rankings of rarer kinds, which a stranger's check must not call a lie."""

from __future__ import annotations

from typing import Any

import evidence_cases
import pytest
from api_cases import report_app, running
from builders import at, rows, settings_of, ticks
from evidence_cases import Competition, verifier
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.crunch_config import Aggregation
from coordinator_node.services.checkpoint import CheckpointStage

verify = verifier()
BY_METRIC = Aggregation(ranking_key="value")


def assert_true(engine: Engine) -> None:
    """Every checkpoint of the competition verifies."""
    with running(report_app(engine)) as server:
        for row in rows(engine, "SELECT id FROM checkpoints ORDER BY period_end"):
            verify.verify(f"http://127.0.0.1:{server.port}", row["id"])


def ranked(engine: Engine) -> list[list[str]]:
    """The ids in each checkpoint's ranking."""
    made = rows(engine, "SELECT meta_jsonb -> 'ranking' AS ranking FROM checkpoints ORDER BY period_end")
    return [[entry["model_id"] for entry in row["ranking"]] for row in made]


def test_a_metric_older_than_its_window_ranks_nobody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evidence_cases.ENVIRON, "CHECKPOINT_INTERVAL_SECONDS", "10800")
    competition = Competition(engine, aggregation=BY_METRIC, metrics_window_hours=1)
    with Session(engine) as session:
        ticks(session, {second: 100 + second % 7 for second in range(8990, 9100)})
        session.commit()
    competition.slot(0)
    competition.count(70)
    competition.slot(300, outputs=(13.0, 1.0, 2.0))  # m1 fails from here on
    competition.count(9070)
    assert competition.check_point(10810) == 1
    assert "m1" not in ranked(engine)[0]
    assert_true(engine)


def test_a_late_score_does_not_hide_a_newer_metric(engine: Engine) -> None:
    competition = Competition(engine, aggregation=BY_METRIC)
    competition.slot(1)
    competition.count(95)
    assert competition.check_point(160) == 1
    competition.slot(0, outputs=(-7.0, 1.0, 1.0))
    competition.slot(5, outputs=(13.0, 1.0, 2.0))
    competition.count(215)
    assert competition.check_point(280) == 1
    assert "m1" in ranked(engine)[1]  # by its late score, and ranked by what is newer
    assert_true(engine)


def test_a_cycle_of_a_period_that_became_shorter(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evidence_cases.ENVIRON, "CHECKPOINT_INTERVAL_SECONDS", "240")
    competition = Competition(engine)
    for number in range(5):
        competition.slot(number)
    competition.execute("DELETE FROM predictions WHERE model_id = 'm1' AND performed_at >= :at", at=at(60))
    competition.count(185)
    settings = settings_of(**{**evidence_cases.ENVIRON, "CHECKPOINT_INTERVAL_SECONDS": "120"})
    made = CheckpointStage(engine, competition.config, settings).run_once(at(250), competition.fence)
    assert made.counts == {"checkpoints": 2}
    assert [sorted(models) for models in ranked(engine)] == [["m1"], ["m2", "m3"]]
    assert_true(engine)


def huge(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    return {"value": 1.7e308 if prediction["value"] == 13.0 else 1.0}


def test_a_mean_beyond_the_largest_number(engine: Engine) -> None:
    competition = Competition(engine, scoring_function=huge)
    for number in range(2):
        competition.slot(number, outputs=(13.0, 1.0, 1.0))
    competition.count(95)
    assert competition.check_point(200) == 1
    assert ranked(engine) == [["m2", "m3"]]
    assert_true(engine)


@pytest.mark.parametrize("hours", [10**8, 10**11])
def test_a_window_over_all_time(hours: int, engine: Engine) -> None:
    windows: Any = {"ever": {"hours": hours}}
    competition = Competition(engine, aggregation=Aggregation(windows=windows, ranking_key="ever"))
    competition.run()
    assert_true(engine)
