"""The score stage on a real database: one score a prediction, whatever goes wrong."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import builders
import pytest
from builders import at, one, rows
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Engine, text
from sqlmodel import Session
from structlog.testing import capture_logs

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.checks.startup import warn_at_start
from coordinator_node.services.score import ScoreStage, claim_size, service
from coordinator_node.services.score.service import back_off
from coordinator_node.services.snapshot import SnapshotStage

FULL = (
    "SELECT p.id, p.status, p.failed_reason, s.result_jsonb AS result, s.success, s.failed_reason AS score_reason,"
    " s.generation, s.snapshot_state FROM predictions p LEFT JOIN scores s ON s.prediction_id = p.id ORDER BY p.id"
)


def value_times_profit(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    return {"value": prediction["value"] * ground_truth["profit"]}


def stage_of(engine: Engine, function: Callable[..., Any] = value_times_profit, **fields: Any) -> ScoreStage:
    environ = fields.pop("environ", {})
    return ScoreStage(engine, CrunchConfig(scoring_function=function, **fields), builders.settings_of(**environ))


def market(session: Session, until: float = 60) -> None:
    """BTC rises from 100 to 110 in the first minute."""
    builders.ticks(session, {0: 100.0, 60: 110.0} if until >= 60 else {0: 100.0})
    builders.watermark(session, at(until))


def some_predictions(session: Session, count: int = 1, **fields: Any) -> list[str]:
    model = builders.model(session)
    row = builders.market_input(session)
    return [builders.prediction(session, model.id, row.id, **fields).id for _ in range(count)]


def test_a_prediction_is_scored_by_the_truth_of_its_input(engine: Engine) -> None:
    with Session(engine) as session:
        market(session)
        some_predictions(session, inference_output_jsonb={"value": 2, "note": "kept"})
        session.commit()
    result = stage_of(engine).run_once(at(61))
    assert result == PassResult({"scored": 1, "failed": 0, "waiting": 0})
    [row] = rows(engine, FULL)
    assert (row["status"], row["failed_reason"], row["success"], row["generation"]) == ("SCORED", None, True, 1)
    assert row["result"] == {"value": pytest.approx(0.2), "success": True, "failed_reason": None}
    assert row["snapshot_state"] == "PENDING"
    [stored] = rows(engine, "SELECT status, actuals_jsonb FROM inputs")
    truth = {"entry_price": 100.0, "resolved_price": 110.0, "profit": 0.1, "direction_up": True}
    assert stored == {"status": "RESOLVED", "actuals_jsonb": truth}


def test_the_scoring_function_gets_the_output_flat_with_its_ids(engine: Engine) -> None:
    class Output(BaseModel):
        value: float

    given: list[Any] = []

    def remember(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
        given.append((prediction, ground_truth))
        return {"value": 1}

    with Session(engine) as session:
        market(session)
        [prediction_id] = some_predictions(session, inference_output_jsonb={"value": "3", "why": {"a": 1}})
        session.commit()
    stage_of(engine, remember, output_type=Output).run_once(at(61))
    [(prediction, truth)] = given
    model_id = one(engine, "SELECT id FROM models")
    expected = {"value": 3.0, "why": {"a": 1}, "model_id": model_id, "prediction_id": prediction_id}
    assert prediction == expected
    assert truth["profit"] == 0.1


def test_a_prediction_is_not_touched_before_its_time(engine: Engine) -> None:
    with Session(engine) as session:
        market(session, until=120)
        some_predictions(session)
        session.commit()
    assert stage_of(engine).run_once(at(59.999999)) == PassResult({})
    assert one(engine, "SELECT count(*) FROM scores") == 0


class RefusedError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def badly(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> Any:
    """Does what the prediction's `do` says."""
    todo: dict[str, Callable[[], Any]] = {
        "raise": lambda: {}["missing"],
        "exit": lambda: sys.exit(3),
        "cancelled": lambda: (_ for _ in ()).throw(asyncio.CancelledError()),
        "unreadable": lambda: (_ for _ in ()).throw(RefusedError()),
        "nan": lambda: {"value": math.nan},
        "deep inf": lambda: {"value": 1.0, "parts": [{"x": math.inf}]},
        "none": lambda: None,
        "number": lambda: 0.5,
        "text": lambda: {"value": "high"},
        "nul": lambda: {"value": 1.0, "note": "a\x00b"},
        "half": lambda: {"value": 1.0, "note": "\ud800"},
        "huge": lambda: {"value": 1.0, "big": 10**400},
        "object": lambda: {"value": 1.0, "thing": object()},
        "failed": lambda: {"value": 7.0, "success": False, "failed_reason": "not in the mood"},
        "failed nan": lambda: {"value": math.nan, "success": False, "failed_reason": "no data\x00"},
        "mutate": lambda: ground_truth.clear() or {"value": 1.0},
    }
    return todo.get(prediction.get("do", ""), lambda: {"value": ground_truth["profit"]})()


BAD = {
    "raise": "KeyError: 'missing'",
    "exit": "SystemExit: 3",
    "cancelled": "CancelledError",
    "unreadable": "RefusedError: (its text cannot be read)",
    "nan": "UnstorableError: score.value is nan",
    "deep inf": "UnstorableError: score.parts[0].x is inf",
    "none": "TypeError: the scoring function returned a NoneType, not a dict",
    "number": "TypeError: the scoring function returned a float, not a dict",
    "text": "ValidationError: ScoreResult: value: Input should be a valid number",
    "nul": "UnstorableError: score.note holds text that the database cannot store",
    "half": "UnstorableError: score.note holds text that the database cannot store",
    "huge": "UnstorableError: score.big is larger than any float",
    "object": "UnstorableError: a object is no JSON value",
    "failed": "not in the mood",
    "failed nan": "no data\ufffd",
}


def test_of_a_thousand_predictions_the_bad_ones_fail_and_the_rest_is_scored(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", 1000)
    monkeypatch.setattr(claim_size, "FIRST", 1000)
    with Session(engine) as session:
        market(session)
        model, row = builders.model(session), builders.market_input(session)
        for do in [*BAD, "mutate"]:
            builders.prediction(session, model.id, row.id, id=do, inference_output_jsonb={"value": 1, "do": do})
        output = {"value": "not a number"}
        builders.prediction(session, model.id, row.id, id="wrong output", inference_output_jsonb=output)
        builders.prediction(session, model.id, row.id, id="nan output", inference_output_jsonb={"value": "nan"})
        session.connection().execute(
            text(
                "INSERT INTO predictions (id, input_id, model_id, scope_key, scope_jsonb, status, exec_time_ms,"
                " inference_output_jsonb, meta_jsonb, performed_at, resolvable_at)"
                " SELECT 'good ' || n, :input, :model, 'BTC-60', '{\"subject\": \"BTC\"}', 'PENDING', 0,"
                " '{\"value\": 1}', '{}', :start, :end FROM generate_series(1, :count) AS n"
            ),
            {"input": row.id, "model": model.id, "start": at(0), "end": at(60), "count": 1000 - len(BAD) - 3},
        )
        session.commit()
    result = stage_of(engine, badly).run_once(at(61))
    assert result == PassResult({"scored": 1000 - len(BAD) - 2, "failed": len(BAD) + 2, "waiting": 0}, again=True)
    found = {row["id"]: row for row in rows(engine, FULL)}
    assert len(found) == 1000
    for do, reason in BAD.items():
        row = found[do]
        assert (row["status"], row["success"]) == ("FAILED", False)
        assert row["failed_reason"].startswith(reason)
        assert row["score_reason"] == row["failed_reason"]
    assert found["failed"]["result"]["value"] == 7.0
    assert found["failed nan"]["result"] == {}
    assert found["wrong output"]["failed_reason"].startswith("ValidationError: InferenceOutput: value")
    assert found["nan output"]["failed_reason"] == "ValueError: output.value is nan"
    good = [row for row in found.values() if row["status"] == "SCORED"]
    assert all(row["success"] and row["generation"] == 1 for row in good)
    assert {row["result"]["value"] for row in good if row["id"] != "mutate"} == {0.1}


@pytest.mark.parametrize(
    "output",
    ['{"value": 1' + "0" * 5000 + "}", '{"value": ' + "[" * 2000 + "]" * 2000 + "}", "[1]", '"text"', "7"],
    ids=["digits", "depth", "list", "text", "number"],
)
@pytest.mark.parametrize("known", [True, False])
def test_an_output_that_python_cannot_hold_costs_its_prediction_only(engine: Engine, output: str, known: bool) -> None:
    with Session(engine) as session:
        market(session)
        builders.model(session, "a")
        row = builders.market_input(session, actuals_jsonb={"profit": 0.1} if known else None)
        for prediction_id in ("bad", "good"):
            builders.prediction(session, "a", row.id, id=prediction_id, scope_key=prediction_id)
        session.connection().execute(
            text("UPDATE predictions SET inference_output_jsonb = CAST(:output AS jsonb) WHERE id = 'bad'"),
            {"output": output},
        )
        lease = builders.lease(session)
        session.commit()
    assert stage_of(engine).run_once(at(61)).counts == {"scored": 1, "failed": 1, "waiting": 0}
    snapshots = SnapshotStage(engine, CrunchConfig(metrics=["ic"]), builders.settings_of())
    assert snapshots.run_once(at(62), lease).counts["counted"] == 2


def test_a_score_type_of_ones_own_decides_what_is_valid(engine: Engine) -> None:
    class Pnl(BaseModel):
        model_config = ConfigDict(extra="allow")

        pnl: float

    with Session(engine) as session:
        market(session)
        some_predictions(session)
        session.commit()
    stage_of(engine, lambda p, g: {"pnl": "4", "extra": (1, 2)}, score_type=Pnl).run_once(at(61))
    [row] = rows(engine, FULL)
    assert (row["success"], row["result"]) == (True, {"pnl": 4.0, "extra": [1, 2]})


def test_without_truth_a_prediction_waits_longer_and_longer_and_then_fails(engine: Engine) -> None:
    with Session(engine) as session:
        market(session, until=59)
        some_predictions(session)
        session.commit()
    stage = stage_of(engine, environ={"GROUND_TRUTH_TIMEOUT_SECONDS": "100"})
    now = at(60)
    waited = []
    for _ in range(9):
        assert stage.run_once(now).counts["waiting"] == 1
        assert not stage.run_once(now).counts
        following = one(engine, "SELECT next_attempt_at FROM predictions")
        waited.append((following - now).total_seconds())
        now = following
    assert waited == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert one(engine, "SELECT attempts FROM predictions") == 9
    assert now > at(160)
    assert stage.run_once(now).counts == {"scored": 0, "failed": 1, "waiting": 0}
    [row] = rows(engine, FULL)
    assert (row["status"], row["failed_reason"], row["result"]) == ("FAILED", "no ground truth", None)
    assert one(engine, "SELECT status FROM inputs") == "RECEIVED"


def test_a_prediction_is_scored_once_its_truth_came(engine: Engine) -> None:
    with Session(engine) as session:
        market(session, until=59)
        some_predictions(session)
        session.commit()
    stage = stage_of(engine)
    stage.run_once(at(60))
    with Session(engine) as session:
        builders.records(session, {60: {"price": 110.0}})
        builders.watermark(session, at(60))
        session.commit()
    assert stage.run_once(at(60.5)).counts["scored"] == 1


def test_a_back_off_never_grows_beyond_half_a_minute() -> None:
    assert back_off(0) == timedelta(seconds=0.5)
    assert back_off(10**6) == timedelta(seconds=30)


def test_a_resolver_that_raises_for_one_subject_costs_that_subject(engine: Engine) -> None:
    def resolve(feed_records: list[Any], prediction: Any = None) -> dict[str, Any]:
        if prediction.scope["subject"] == "ETH":
            raise RuntimeError("no such market")
        return {"profit": 0.5}

    with Session(engine) as session:
        market(session)
        builders.watermark(session, at(60), subject="ETH")
        model, row = builders.model(session), builders.market_input(session, scope_jsonb=None)
        builders.prediction(session, model.id, row.id, id="btc")
        builders.prediction(session, model.id, row.id, id="eth", scope_key="ETH-60", scope_jsonb={"subject": "ETH"})
        session.commit()
    stage = stage_of(engine, resolve_ground_truth=resolve)
    assert stage.run_once(at(61)).counts == {"scored": 1, "failed": 0, "waiting": 1}
    btc, eth = rows(engine, FULL)
    assert btc["status"] == "SCORED"
    assert (eth["status"], eth["failed_reason"]) == ("PENDING", "RuntimeError: no such market")
    stage.run_once(at(61 + 86400))
    eth = rows(engine, FULL)[1]
    assert (eth["status"], eth["failed_reason"]) == ("FAILED", "no ground truth: RuntimeError: no such market")


def test_an_input_of_several_scopes_keeps_a_truth_for_each(engine: Engine) -> None:
    with Session(engine) as session:
        market(session)
        builders.ticks(session, {0: 10.0, 60: 5.0}, subject="ETH")
        model = builders.model(session)
        row = builders.market_input(session, scope_jsonb=None, actuals_jsonb={"by hand": {"kept": True}})
        builders.prediction(session, model.id, row.id)
        builders.prediction(session, model.id, row.id, scope_key="ETH-60", scope_jsonb={"subject": "ETH"})
        builders.prediction(session, model.id, row.id, resolvable_at=at(60), scope_key="BTC-later")
        session.commit()
    assert stage_of(engine).run_once(at(61)).counts["scored"] == 3
    actuals = one(engine, "SELECT actuals_jsonb FROM inputs")
    assert {key: truth.get("profit") for key, truth in actuals.items()} == {
        "by hand": None,
        "BTC-60@2026-03-01T12:01:00.000000Z": 0.1,
        "ETH-60@2026-03-01T12:01:00.000000Z": -0.5,
        "BTC-later@2026-03-01T12:01:00.000000Z": 0.1,
    }


def test_a_truth_that_is_stored_is_used_and_not_resolved_again(engine: Engine) -> None:
    def never(feed_records: list[Any], prediction: Any = None) -> None:
        raise AssertionError("the truth is there")

    with Session(engine) as session:
        model, row = builders.model(session), builders.market_input(session, actuals_jsonb={"profit": 3.0})
        builders.prediction(session, model.id, row.id)
        session.commit()
    stage_of(engine, resolve_ground_truth=never).run_once(at(61))
    assert rows(engine, FULL)[0]["result"]["value"] == 3.0


def test_a_truth_is_resolved_once_for_all_models_of_a_slot(engine: Engine) -> None:
    calls: list[Any] = []

    def resolve(feed_records: list[Any]) -> dict[str, Any]:
        calls.append(len(feed_records))
        return {"profit": 1.0}

    with Session(engine) as session:
        market(session)
        row = builders.market_input(session)
        for _ in range(20):
            builders.prediction(session, builders.model(session).id, row.id)
        session.commit()
    assert stage_of(engine, resolve_ground_truth=resolve).run_once(at(61)).counts["scored"] == 20
    assert calls == [2]


def test_a_truth_that_another_worker_stored_meanwhile_is_the_one_that_counts(engine: Engine) -> None:
    def resolve(feed_records: list[Any]) -> dict[str, Any]:
        with engine.begin() as connection:
            connection.execute(text("UPDATE inputs SET status = 'RESOLVED', actuals_jsonb = '{\"profit\": 9}'"))
        return {"profit": 1.0}

    with Session(engine) as session:
        market(session)
        some_predictions(session)
        session.commit()
    stage_of(engine, resolve_ground_truth=resolve).run_once(at(61))
    assert rows(engine, FULL)[0]["result"]["value"] == 9.0
    assert one(engine, "SELECT actuals_jsonb FROM inputs") == {"profit": 9}


def test_with_horizon_0_a_prediction_is_scored_at_once_by_its_own_input(engine: Engine) -> None:
    with Session(engine) as session:
        row = builders.market_input(session, raw_data_jsonb={"profit": 0.25})
        builders.prediction(session, builders.model(session).id, row.id, resolvable_at=at(0))
        session.commit()
    assert stage_of(engine).run_once(at(0)).counts["scored"] == 1
    assert one(engine, "SELECT result_jsonb ->> 'value' FROM scores") == "0.25"
    assert one(engine, "SELECT actuals_jsonb FROM inputs") == {"profit": 0.25}


def test_a_pass_that_ends_before_its_commit_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(engine) as session:
        market(session)
        some_predictions(session, 5)
        session.commit()
    stage = stage_of(engine)
    before = rows(engine, "SELECT * FROM predictions ORDER BY id"), rows(engine, "SELECT * FROM inputs")

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # The last thing that a pass writes: all the rest is written already.
        patched.setattr(service, "store_expiries", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.run_once(at(61))
    assert before == (rows(engine, "SELECT * FROM predictions ORDER BY id"), rows(engine, "SELECT * FROM inputs"))
    assert one(engine, "SELECT count(*) FROM scores") == 0
    assert stage.run_once(at(61)).counts["scored"] == 5


def test_what_another_worker_holds_is_left_to_it(engine: Engine) -> None:
    with Session(engine) as session:
        market(session)
        first, second = some_predictions(session, 2)
        session.commit()
    with Session(engine) as other:
        other.connection().execute(text("SELECT 1 FROM predictions WHERE id = :id FOR UPDATE"), {"id": first})
        assert stage_of(engine).run_once(at(61)).counts["scored"] == 1
    assert {row["id"]: row["status"] for row in rows(engine, FULL)} == {first: "PENDING", second: "SCORED"}


def test_a_slow_scoring_function_gives_its_rows_back_in_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(engine) as session:
        market(session)
        some_predictions(session, 3)
        session.commit()
    stage = stage_of(engine)
    monkeypatch.setattr(service, "SCORING_SECONDS", -1.0)
    assert stage.run_once(at(61)).counts == {"scored": 0, "failed": 0, "waiting": 0}
    monkeypatch.setattr(service, "SCORING_SECONDS", 5.0)
    assert stage.run_once(at(61)).counts["scored"] == 3


def test_two_workers_drain_two_thousand_predictions_with_one_score_each(
    engine: Engine, database_url: str, connect: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 inputs of 50 models; small batches, so that every batch shares inputs with another worker's."""
    monkeypatch.setattr(service, "BATCH", 70)
    with Session(engine) as session:
        builders.ticks(session, {second: 100.0 + second for second in range(120)})
        models = [builders.model(session).id for _ in range(50)]
        for slot in range(40):
            row = builders.market_input(session, scope_jsonb={"subject": "BTC"} if slot % 2 else None)
            for model in models:
                builders.prediction(session, model, row.id, performed_at=at(slot), resolvable_at=at(slot + 30))
        session.commit()
    problems: list[BaseException] = []
    together = threading.Barrier(2)

    def drain() -> None:
        try:
            stage = stage_of(connect(database_url))
            together.wait(timeout=10)
            while stage.run_once(at(120)).counts:
                pass
        except BaseException as error:
            problems.append(error)

    workers = [threading.Thread(target=drain) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems == []
    assert rows(engine, "SELECT status, count(*) AS n FROM predictions GROUP BY 1") == [{"status": "SCORED", "n": 2000}]
    assert one(engine, "SELECT count(*) FROM scores") == 2000
    assert one(engine, "SELECT count(DISTINCT prediction_id) FROM scores") == 2000
    assert one(engine, "SELECT count(*) FROM inputs WHERE status = 'RESOLVED' AND actuals_jsonb IS NOT NULL") == 40


def test_the_default_scoring_function_is_warned_about() -> None:
    with capture_logs() as logs:
        warn_at_start("score", builders.settings_of(), CrunchConfig())
    assert [entry["log_level"] for entry in logs if "SCORING_FUNCTION" in entry["event"]] == ["warning"]
    own = CrunchConfig(scoring_function=lambda prediction, truth: {"value": prediction["value"] * truth["profit"]})
    with capture_logs() as logs:
        warn_at_start("score", builders.settings_of(), own)
    assert logs == []


def test_the_config_goes_before_the_environment(engine: Engine) -> None:
    environ = {"SCORING_FUNCTION": "no_such_module:function"}
    stage_of(engine, environ=environ)
    with pytest.raises(ConfigurationError, match="no_such_module"):
        ScoreStage(engine, CrunchConfig(), builders.settings_of(**environ))


def test_stateful_scoring_is_refused_at_start(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="stateful_scoring"):
        stage_of(engine, stateful_scoring=True)
