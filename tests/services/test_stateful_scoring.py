"""Scoring that keeps state: in order, by one worker, and saved with the scores."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import builders
import pytest
from builders import at, one, rows
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.score import ScoreStage, StatefulScoreStage, score_stage, service, stateful

# A model's scores in the order of their outcomes.
IN_ORDER = """
    SELECT prediction.model_id, prediction.id, CAST(scores.result_jsonb ->> 'value' AS float8) AS value, scores.success
    FROM predictions AS prediction LEFT JOIN scores ON scores.prediction_id = prediction.id
    ORDER BY prediction.model_id, prediction.resolvable_at, prediction.id
"""
STATES = "SELECT model_id, state_jsonb FROM scoring_states ORDER BY model_id"


def counting(prediction: dict[str, Any], ground_truth: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The value is how many of the model's predictions were scored before; `mood` makes it fail."""
    state["seen"] = [*state.get("seen", []), prediction["value"]]
    number = len(state["seen"]) - 1
    mood = prediction.get("mood")
    if mood == "raise":
        raise ValueError("in the middle")
    if mood == "unstorable":
        state["total"] = math.nan
    return {"value": number, "success": mood != "refuse"}


def stage_of(engine: Engine, function: Callable[..., Any] = counting, **environ: str) -> ScoreStage:
    config = CrunchConfig(scoring_function=function, stateful_scoring=True)
    return score_stage(engine, config, builders.settings_of(**environ))


def predictions(session: Session, model_id: str, count: int, **fields: Any) -> None:
    """One a second, whose truths are stored; written in an order of their own."""
    numbers = list(range(count))
    random.Random(model_id).shuffle(numbers)
    builders.model(session, model_id)
    for n in numbers:
        row = builders.market_input(session, actuals_jsonb={"profit": 1.0}, status="RESOLVED")
        builders.prediction(
            session,
            model_id,
            row.id,
            id=f"{model_id}-{n:03d}",
            performed_at=at(n),
            resolvable_at=at(n + 10),
            inference_output_jsonb={"value": float(n)},
            **fields,
        )


def test_the_config_decides_which_stage_scores(engine: Engine) -> None:
    assert type(stage_of(engine)) is StatefulScoreStage
    assert type(score_stage(engine, CrunchConfig(), builders.settings_of())) is ScoreStage


def test_each_models_predictions_are_scored_in_the_order_of_their_outcomes(engine: Engine) -> None:
    with Session(engine) as session:
        predictions(session, "a", 30)
        predictions(session, "b", 3)
        session.commit()
    stage = stage_of(engine)
    assert stage.run_once(at(9)).counts == {}
    assert stage.run_once(at(24)).counts == {"scored": 18, "failed": 0, "waiting": 0}
    assert stage.run_once(at(100)).counts["scored"] == 15
    assert stage.run_once(at(100)).counts == {}
    found = rows(engine, IN_ORDER)
    assert [row["value"] for row in found] == [*range(30), *range(3)]
    assert [row["state_jsonb"]["seen"] for row in rows(engine, STATES)] == [list(range(30)), list(range(3))]


def test_what_fails_leaves_the_state_as_it_was(engine: Engine) -> None:
    with Session(engine) as session:
        predictions(session, "a", 6)
        for n, mood in ((1, "raise"), (3, "unstorable"), (4, "refuse")):
            session.connection().execute(
                text("UPDATE predictions SET inference_output_jsonb = CAST(:output AS jsonb) WHERE id = :id"),
                {"id": f"a-{n:03d}", "output": f'{{"value": {n}, "mood": "{mood}"}}'},
            )
        session.commit()
    assert stage_of(engine).run_once(at(100)).counts == {"scored": 3, "failed": 3, "waiting": 0}
    assert [(row["value"], row["success"]) for row in rows(engine, IN_ORDER)] == [
        (0, True),
        (None, False),
        (1, True),
        (None, False),
        (3 - 1, False),
        (2, True),
    ]
    assert rows(engine, STATES)[0]["state_jsonb"] == {"seen": [0, 2, 5]}
    reasons = rows(engine, "SELECT failed_reason FROM predictions WHERE status = 'FAILED' ORDER BY id")
    assert [row["failed_reason"] for row in reasons][:2] == [
        "ValueError: in the middle",
        "UnstorableError: state.total is nan",
    ]


def test_what_waits_for_its_truth_holds_up_what_comes_after_it(engine: Engine) -> None:
    with Session(engine) as session:
        predictions(session, "a", 5)
        predictions(session, "b", 5)
        session.connection().execute(
            text(
                "UPDATE inputs SET actuals_jsonb = NULL, status = 'RECEIVED'"
                " WHERE id = (SELECT input_id FROM predictions WHERE id = 'a-002')"
            )
        )
        session.commit()
    stage = stage_of(engine, GROUND_TRUTH_TIMEOUT_SECONDS="200")
    assert stage.run_once(at(100)).counts == {"scored": 7, "failed": 0, "waiting": 1}
    assert stage.run_once(at(100)).counts == {}
    assert stage.run_once(at(100) + timedelta(seconds=0.5)).counts == {"scored": 0, "failed": 0, "waiting": 1}
    assert stage.run_once(at(213)).counts == {"scored": 2, "failed": 1, "waiting": 0}
    assert [row["value"] for row in rows(engine, IN_ORDER) if row["model_id"] == "a"] == [0, 1, None, 2, 3]


def test_a_crash_loses_scores_and_state_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(engine) as session:
        predictions(session, "a", 8)
        session.commit()
    stage = stage_of(engine)
    assert stage.run_once(at(13)).counts["scored"] == 4
    before = rows(engine, STATES)

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # The last thing that a pass does: its states are written already.
        written = stateful._store_states
        patched.setattr(stateful, "_store_states", lambda *given: (written(*given), killed()))
        with pytest.raises(KeyboardInterrupt):
            stage.run_once(at(100))
    assert rows(engine, STATES) == before
    assert one(engine, "SELECT count(*) FROM scores") == 4
    assert stage_of(engine).run_once(at(100)).counts["scored"] == 4
    assert [row["value"] for row in rows(engine, IN_ORDER)] == list(range(8))


def test_a_slow_function_goes_on_where_it_stopped(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(engine) as session:
        predictions(session, "a", 3)
        session.commit()
    stage = stage_of(engine)
    monkeypatch.setattr(service, "SCORING_SECONDS", -1.0)
    assert stage.run_once(at(100)).counts == {"scored": 0, "failed": 0, "waiting": 0}
    monkeypatch.setattr(service, "SCORING_SECONDS", 5.0)
    assert stage.run_once(at(100)).counts["scored"] == 3


def test_a_model_that_another_worker_holds_is_left_to_it(engine: Engine) -> None:
    with Session(engine) as session:
        predictions(session, "a", 2)
        predictions(session, "b", 2)
        session.commit()
    stage = stage_of(engine)
    stage.run_once(at(10))
    with Session(engine) as other:
        other.connection().execute(text("SELECT 1 FROM scoring_states WHERE model_id = 'a' FOR UPDATE"))
        assert stage.run_once(at(100)).counts["scored"] == 1
    assert stage.run_once(at(100)).counts["scored"] == 1


def test_two_workers_drain_in_order_with_one_score_each(
    engine: Engine, database_url: str, connect: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", 14)
    monkeypatch.setattr(stateful, "MODELS_AT_ONCE", 2)
    with Session(engine) as session:
        for model in range(6):
            predictions(session, f"m{model}", 40)
        session.commit()
    problems: list[BaseException] = []
    together = threading.Barrier(2)

    def drain() -> None:
        try:
            stage = stage_of(connect(database_url))
            together.wait(timeout=10)
            while one(engine, "SELECT count(*) FROM predictions WHERE status = 'PENDING'"):
                stage.run_once(at(100))
        except BaseException as error:
            problems.append(error)

    workers = [threading.Thread(target=drain) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems == []
    found = rows(engine, IN_ORDER)
    assert [row["value"] for row in found] == [*range(40)] * 6
    assert [row["state_jsonb"]["seen"] for row in rows(engine, STATES)] == [list(range(40))] * 6


def test_looking_for_work_costs_what_is_due_and_not_the_history(engine: Engine) -> None:
    """Beside 20,000 scored predictions, both questions go through the index of what is pending."""
    with Session(engine) as session:
        predictions(session, "a", 5)
        row = builders.market_input(session)
        session.connection().execute(
            text(
                "INSERT INTO predictions (id, input_id, model_id, scope_key, scope_jsonb, status, exec_time_ms,"
                " inference_output_jsonb, meta_jsonb, performed_at, resolvable_at)"
                " SELECT 'old ' || n, :input, 'a', 'BTC-60', '{}', 'SCORED', 0, '{}', '{}', :start, :start"
                " FROM generate_series(1, 20000) AS n"
            ),
            {"input": row.id, "start": at(0)},
        )
        session.commit()
        session.connection().execute(text("ANALYZE predictions"))
        for query in (stateful._DUE_MODELS, stateful._CLAIM):
            values = {"now": at(100), "ids": ["a"], "each": 100}
            wanted = {name: values[name] for name in query.compile().params}
            plan = session.connection().execute(text(f"EXPLAIN {query.text}"), wanted).scalars().all()
            said = "\n".join(plan)
            assert "ix_predictions_pending_by_model" in said, said
            assert "Seq Scan on predictions" not in said, said
