"""A stranger checks a checkpoint whose period was scored again: what stands in for what, and that nothing else does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_cases import report_app, running
from builders import at, one, rows
from evidence_cases import Competition, verifier
from invariants import broken_log_rules
from sqlalchemy import Engine

from coordinator_node.db.reports import evidence
from coordinator_node.services.rescore import Period, rescore
from coordinator_node.services.snapshot import rescored_cycles

verify = verifier()
P = "p-1-m2"


def reversed_profit(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """Another scoring function: what failed before has a score, and some of the others fail."""
    if prediction["model_id"] == "m1" and prediction["prediction_id"] == "p-1-m1":
        return {"success": False, "failed_reason": "wrong the second time"}
    return {"value": -prediction["value"] * ground_truth["profit"], "actual_return": ground_truth["profit"]}


def score_again(competition: Competition, first: float, last: float, now: float) -> None:
    config = competition.config.model_copy(update={"scoring_function": reversed_profit})
    rescore(competition.engine, config, competition.settings, Period(at(first), at(last)), at(now), dry_run=False)


@pytest.fixture
def competition(engine: Engine) -> Iterator[Competition]:
    """Five slots, scored in two cycles; one answer fails at first. Two periods end with 240 s."""
    made = Competition(engine)
    for number in range(5):
        made.slot(number, outputs=(13.0, 1.0, 2.0) if number == 2 else ())
    made.count(95)
    made.count(185)
    return made


@pytest.fixture
def url(competition: Competition) -> Iterator[str]:
    with running(report_app(competition.engine)) as server:
        yield f"http://127.0.0.1:{server.port}"


def superseded(engine: Engine) -> int:
    return int(one(engine, "SELECT count(*) FROM snapshots WHERE superseded_by IS NOT NULL"))


def outside(engine: Engine) -> int:
    return int(one(engine, "SELECT count(*) FROM snapshots WHERE id NOT IN (SELECT snapshot_id FROM merkle_counted)"))


@pytest.mark.parametrize("by_leader", [True, False])
def test_a_checkpoint_after_rescores_is_covered_wholly(
    by_leader: bool, competition: Competition, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(rescored_cycles, "CYCLES_AT_ONCE", 1)
    score_again(competition, 0, 200, 200)
    score_again(competition, 0, 120, 210)
    assert outside(competition.engine) == superseded(competition.engine) > 0
    if by_leader:
        competition.count(215)
        assert outside(competition.engine) == 0
    assert competition.check_point(300) == 2
    assert outside(competition.engine) == 0
    assert broken_log_rules(competition.engine) == []
    for row in rows(competition.engine, "SELECT id FROM checkpoints ORDER BY period_end"):
        assert verify.main(["--url", url, "--checkpoint", row["id"]]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        assert "outside the log" not in said
        assert "snapshots of scores that were made again" in said
    monkeypatch.setattr(evidence, "ITEMS", 2)
    assert verify.main(["--url", url]) == 0
    assert capsys.readouterr().out == said


NEWEST = f"(SELECT snapshot_id FROM scores WHERE prediction_id = '{P}' ORDER BY generation DESC LIMIT 1)"
LIES = {
    "a score of a rescore": (
        f"UPDATE scores SET result_jsonb = jsonb_set(result_jsonb, '{{value}}', '99')"
        f" WHERE prediction_id = '{P}' AND generation = 2",
        "prediction p-1-m2 of model m2: its score",
    ),
    "whether a score of a rescore counts": (
        "UPDATE scores SET success = true WHERE prediction_id = 'p-1-m1' AND generation = 2",
        "prediction p-1-m1 of model m1: its score",
    ),
    "the snapshot that is stood in for": (
        f"UPDATE snapshots SET superseded_by = NULL WHERE id = (SELECT origin_id FROM snapshots WHERE id = {NEWEST})",
        "snapshot .* of model m2: it is shown as superseded by generation None, by the log it is 2",
    ),
    "a snapshot that nothing stands in for": (
        f"UPDATE snapshots SET superseded_by = 2 WHERE id = {NEWEST}",
        "snapshot .* of model m2: it is shown as superseded by generation 2, by the log it is None",
    ),
    "what it stands in for": (
        f"UPDATE snapshots SET meta_jsonb = meta_jsonb - 'rescore' WHERE id = {NEWEST}",
        "snapshot .* of model m2: its sums or its times|prediction p-1-m1 of model m1: its score",
    ),
    "the generation that the checkpoint saw": (
        "UPDATE checkpoints SET meta_jsonb = jsonb_set(meta_jsonb, '{merkle,generation}', '1')",
        "it cannot stand in for snapshot",
    ),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lie_about_a_rescore_is_named(
    what: str, competition: Competition, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    score_again(competition, 0, 200, 200)
    assert competition.check_point(300) == 2
    first = one(competition.engine, "SELECT id FROM checkpoints ORDER BY period_end LIMIT 1")
    statement, named = LIES[what]
    competition.execute(statement)
    assert verify.main(["--url", url, "--checkpoint", first]) == 1
    said = capsys.readouterr().err
    assert re.search(named, said), said


def test_a_rescore_that_began_before_the_checkpoint_and_is_published_after_it_is_of_the_next(
    competition: Competition, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert competition.check_point(200) == 1
    first = one(competition.engine, "SELECT id FROM checkpoints")
    score_again(competition, 0, 120, 190)  # by its own clock it was before
    for logged in (False, True):
        if logged:
            competition.count(215)
        assert verify.main(["--url", url, "--checkpoint", first]) == 0, capsys.readouterr().err
        assert "made again" not in capsys.readouterr().out
    assert competition.check_point(300) == 1
    for checkpoint in (first, "latest"):
        assert verify.main(["--url", url, "--checkpoint", checkpoint]) == 0, capsys.readouterr().err
    assert "made again" in capsys.readouterr().out
