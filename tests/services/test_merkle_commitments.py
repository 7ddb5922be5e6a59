"""Predictions are committed before their outcome: which, where, and what becomes of those that were not in time."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from builders import at, one, rows, settings_of
from evidence_cases import MODELS, Competition
from invariants import broken_log_rules
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.extensions.emission_strategies import top_k_exponential
from coordinator_node.merkle.documents import prediction_leaf
from coordinator_node.merkle.tree import root_of
from coordinator_node.services.merkle.checkpoints import rules_of
from coordinator_node.services.merkle.commitments import chain_commitments, commit_predictions
from coordinator_node.services.score import score_stage


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "slot_id": None,
        "input_id": "input",
        "model_id": f"model of {name}",
        "prediction_config_id": "schedule",
        "scope_key": "BTC-60",
        "scope_jsonb": {"subject": "BTC"},
        "status": "PENDING",
        "inference_output_jsonb": {"value": 0.5},
        "performed_at": at(0),
        "resolvable_at": at(60),
        **fields,
    }


def test_what_waits_for_an_outcome_is_committed_under_one_root(engine: Engine) -> None:
    given = [
        row("a"),
        row("failed", status="FAILED"),
        row("live trading", resolvable_at=at(0)),
        row("tournament", prediction_config_id=None),
        row("b", inference_output_jsonb={"value": 1e300}),
    ]
    with Session(engine) as session:
        committed = commit_predictions(session, given, at(1))
        session.commit()
    assert [(one["id"], one["commitment_index"]) for one in committed] == [
        ("a", 0),
        ("failed", None),
        ("live trading", None),
        ("tournament", None),
        ("b", 1),
    ]
    [stored] = rows(engine, "SELECT * FROM merkle_commitments")
    leaves = [prediction_leaf(given[0]), prediction_leaf(given[4])]
    assert (stored["leaves"], stored["root"]) == (b"".join(leaves), root_of(leaves).hex())
    assert (stored["prediction_count"], stored["committed_at"], stored["position"]) == (2, at(1), None)
    assert {one["commitment_id"] for one in committed} == {stored["id"], None}


def test_nothing_to_commit_writes_nothing(engine: Engine) -> None:
    with Session(engine) as session:
        assert commit_predictions(session, [], at(1)) == []
        [alone] = commit_predictions(session, [row("a", status="ABSENT")], at(1))
        assert chain_commitments(session) is None
        session.commit()
    assert alone["commitment_id"] is None
    assert one(engine, "SELECT count(*) FROM merkle_commitments") == 0


def test_a_prediction_that_is_there_already_gets_no_second_leaf(engine: Engine) -> None:
    competition = Competition(engine)
    competition.slot(0)
    [stored] = rows(engine, "SELECT * FROM predictions WHERE model_id = 'm1'")
    with Session(engine) as session:
        again = row("other", slot_id=stored["slot_id"], model_id="m1")
        assert commit_predictions(session, [again], at(1))[0]["commitment_id"] is None


def test_the_chain_goes_on_where_it_was(engine: Engine) -> None:
    newest = None
    for second in (1, 3, 2):
        with Session(engine) as session:
            commit_predictions(session, [row(f"p{second}")], at(second))
            before, newest = newest, chain_commitments(session)
            assert chain_commitments(session) == newest != before
            session.commit()
    chain = rows(engine, "SELECT * FROM merkle_commitments ORDER BY position")
    assert [commitment["position"] for commitment in chain] == [1, 2, 3]
    assert chain[0]["previous_root"] is None
    assert [c["previous_root"] for c in chain[1:]] == [c["chained_root"] for c in chain[:-1]]
    assert broken_log_rules(engine) == []


@pytest.mark.parametrize("stateful", [False, True])
def test_what_was_committed_too_late_fails_and_what_was_not_committed_is_scored(engine: Engine, stateful: bool) -> None:
    competition = Competition(engine)
    competition.slot(0, committed_after=60)
    competition.slot(1, committed_after=59.999999)
    competition.slot(2, committed_after=None)

    def scored(prediction: dict[str, Any], ground_truth: dict[str, Any], *state: Any) -> dict[str, Any]:
        return {"value": 1.0}

    config = CrunchConfig(scoring_function=scored, stateful_scoring=stateful)
    result = score_stage(engine, config, competition.settings).run_once(at(125))
    assert (result.counts["scored"], result.counts["failed"]) == (2 * len(MODELS), len(MODELS))
    found = rows(engine, "SELECT * FROM predictions ORDER BY performed_at, id")
    assert [(r["status"], r["failed_reason"]) for r in found[:3]] == [("FAILED", "committed late")] * 3
    assert {(r["status"], r["failed_reason"]) for r in found[3:]} == {("SCORED", None)}


def test_a_cycle_of_the_older_version_is_no_link_of_ours(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO merkle_cycles (id, snapshots_root, chained_root, snapshot_count, created_at)"
            " VALUES ('old', 'a', 'b', 3, now() + interval '10 years')"
        )
    competition = Competition(engine)
    competition.slot(0)
    competition.count(95)
    first = rows(engine, "SELECT * FROM merkle_cycles WHERE position IS NOT NULL")
    assert [(c["position"], c["previous_cycle_id"], c["previous_cycle_root"]) for c in first] == [(1, None, None)]
    assert broken_log_rules(engine) == []


def test_the_log_of_a_whole_competition_holds_and_any_change_is_found(engine: Engine) -> None:
    competition = Competition(engine)
    competition.run()
    assert broken_log_rules(engine) == []
    competition.execute("UPDATE scores SET result_jsonb = '{}' WHERE prediction_id = 'p-1-m1'")
    assert broken_log_rules(engine) == ["prediction p-1-m1 or its outcome is not what cycle 1 covers"]


def own_score(prediction: dict[str, Any], ground_truth: dict[str, Any], *, key: str) -> dict[str, Any]:
    return {"value": len(key)}


def test_rules_name_what_an_option_is_bound_to_and_our_own_options() -> None:
    strategy, scoring = partial(top_k_exponential, k=5, decay=0.5), partial(own_score, key="of somebody's account")
    rules = rules_of(CrunchConfig(build_emission=strategy, scoring_function=scoring), settings_of())
    assert rules["build_emission"] == f"{top_k_exponential.__module__}:top_k_exponential(k=5, decay=0.5)"
    assert rules["scoring_function"] == f"{own_score.__module__}:own_score"
