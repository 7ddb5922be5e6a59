"""Rounds of a tournament against real model nodes: a prediction for each row and model, scored by the row's truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import builders
import pytest
from builders import START, at
from hypothesis import given
from hypothesis import strategies as st
from model_cluster import Behaviour, ModelCluster, ModelRaisedError, steady
from predict_cases import UNBALANCED, rows, until_rows
from sqlalchemy import Engine, text
from sqlmodel import Session
from structlog.testing import capture_logs
from test_predict import predicting

from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig, GroundTruth
from coordinator_node.db.engine import transaction
from coordinator_node.db.repositories import DBScoreRepository
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.entities.times import utc_now
from coordinator_node.services.predict.startup import check_predict
from coordinator_node.services.score import ScoreStage
from coordinator_node.services.snapshot import SnapshotStage
from coordinator_node.services.tournament.arguments import row_arguments, row_scope
from coordinator_node.services.tournament.errors import (
    NoPredictWorkerError,
    RoundConflictError,
    RoundInputError,
    UnknownRoundError,
)
from coordinator_node.services.tournament.rounds import queue_round, round_predictions, round_status
from coordinator_node.services.tournament.truths import give_truth, truths_by_index
from coordinator_node.services.tournament_predict import TournamentPredictService

PRESENT = "SELECT id FROM models WHERE presence = 'PRESENT'"
OPEN = "SELECT 1 FROM slot_calls WHERE closed_at IS NULL"


class Truth(GroundTruth):
    y: float


def score(prediction: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    return {"value": -abs(prediction["value"] - truth["y"])}


CONFIG = CrunchConfig(
    mode="tournament",
    metrics=[],
    call_method=CallMethodConfig(
        args=[
            CallMethodArg(name="features", type="JSON"),
            CallMethodArg(name="feature_index", type="INT"),
            CallMethodArg(name="round_id", type="STRING"),
            CallMethodArg(name="x", type="FLOAT"),
        ]
    ),
    ground_truth_type=Truth,
    scoring_function=score,
)
FEATURES = [{"x": 1.5}, {"x": 2}, {"x": 0.0}, {"x": -3.25, "more": [1, {"a": None}]}]


async def doubles(method: str, arguments: list[Any]) -> Any:
    return {"value": 2 * arguments[0]["x"]}


async def raises_on_odd_rows(method: str, arguments: list[Any]) -> Any:
    if arguments[1] % 2:
        raise ModelRaisedError(f"row {arguments[1]} is odd")
    return await doubles(method, arguments)


async def wrong_on_first(method: str, arguments: list[Any]) -> Any:
    return await doubles(method, arguments) if arguments[1] else {"value": float("nan")}


def queue(engine: Engine, round_id: str, features: list[Any] = FEATURES, config: CrunchConfig = CONFIG) -> None:
    with transaction(engine) as session:
        queue_round(session, config, round_id, features, utc_now())


def status_of(engine: Engine, round_id: str) -> dict[str, Any]:
    with engine.connect() as connection:
        return round_status(connection, round_id)


def predictions_of(engine: Engine, round_id: str) -> dict[str, list[Any]]:
    """Each model's predictions in the order of the feature rows."""
    found: dict[str, list[Any]] = {}
    with Session(engine) as session:
        for prediction in round_predictions(session, round_id):
            found.setdefault(prediction.model_id, []).append(prediction)
    return found


async def called(engine: Engine) -> None:
    await until_rows(engine, OPEN, lambda found: not found)


@asynccontextmanager
async def tournament(
    engine: Engine, config: CrunchConfig = CONFIG, settings: dict[str, Any] | None = None, **behaviours: Behaviour
) -> AsyncIterator[ModelCluster]:
    """Models and one predict worker that has connected to all of them."""
    async with ModelCluster(**behaviours) as cluster, predicting(engine, cluster, config, **(settings or {})):
        await until_rows(engine, PRESENT, lambda found: len(found) == len(behaviours))
        yield cluster


async def test_each_model_gives_one_prediction_a_row_and_all_is_scored_by_index(engine: Engine) -> None:
    behaviours = {"good": doubles, "odd": raises_on_odd_rows, "wrong": wrong_on_first}
    async with tournament(engine, **behaviours) as cluster:
        queue(engine, "r1")
        await called(engine)
        for node in cluster.nodes.values():
            assert node.calls == [("predict", [row, i, "r1", float(row["x"])]) for i, row in enumerate(FEATURES)]
    found = predictions_of(engine, "r1")
    assert {model_id: [p.status.value for p in ps] for model_id, ps in found.items()} == {
        "good": ["PENDING"] * 4,
        "odd": ["PENDING", "FAILED", "PENDING", "FAILED"],
        "wrong": ["FAILED", "PENDING", "PENDING", "PENDING"],
    }
    assert [p.inference_output for p in found["good"]] == [{"value": 2.0 * row["x"]} for row in FEATURES]
    for predictions in found.values():
        assert [p.scope["feature_index"] for p in predictions] == [0, 1, 2, 3]
        assert {(p.scope_key, p.scope["round_id"], p.prediction_config_id) for p in predictions} == {
            ("round:r1", "r1", None)
        }
        assert len({p.input_id for p in predictions}) == 4
    reasons = rows(engine, "SELECT failed_reason FROM predictions WHERE model_id = 'odd' AND status = 'FAILED'")
    assert {row.failed_reason for row in reasons} == {"FAILED: row 1 is odd", "FAILED: row 3 is odd"}
    assert rows(engine, UNBALANCED) == []
    assert status_of(engine, "r1")["status"] == "CALLED"
    check_scores(engine)


def check_scores(engine: Engine) -> None:
    """The score stage finds nothing due before the truth, and then everything; the leaderboard shows it."""
    later = utc_now() + timedelta(minutes=1)
    stage = ScoreStage(engine, CONFIG, builders.settings_of())
    assert not any(stage.run_once(later).counts.values())
    with transaction(engine) as session:
        give_truth(session, CONFIG, "r1", {"3": {"y": 0}, "0": {"y": 1}, "2": {"y": 2}, "1": {"y": 3}}, utc_now())
    assert status_of(engine, "r1")["status"] == "SCORING"
    stage.run_once(later)
    status = status_of(engine, "r1")
    assert (status["status"], status["scored"], status["failed"], status["truths"]) == ("SCORED", 9, 3, 4)
    with transaction(engine) as session:
        held = builders.lease(session)
    SnapshotStage(engine, CONFIG, builders.settings_of()).run_once(later, held)
    board = rows(engine, "SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC LIMIT 1")[0].entries_jsonb
    shown = {entry["model_id"]: entry["score"]["metrics"]["score_recent"] for entry in board}
    assert shown["good"] == pytest.approx(-(2 + 1 + 2 + 6.5) / 4)
    assert shown["odd"] == pytest.approx(-(2 + 2) / 2)
    assert shown["wrong"] == pytest.approx(-(1 + 2 + 6.5) / 3)


async def test_a_hanging_model_holds_up_only_itself_and_each_of_its_calls_has_the_whole_timeout(engine: Engine) -> None:
    async def hangs_on_first(method: str, arguments: list[Any]) -> Any:
        if arguments[1] == 0:
            await asyncio.sleep(30)
        await asyncio.sleep(0.3)
        return await doubles(method, arguments)

    async with tournament(engine, settings={"model_runner_timeout_seconds": 0.8}, hangs=hangs_on_first, good=doubles):
        queue(engine, "r1")
        await until_rows(engine, "SELECT 1 FROM predictions WHERE model_id = 'good'", lambda found: len(found) == 4)
        assert rows(engine, "SELECT 1 FROM predictions WHERE model_id = 'hangs'") == []
        status = status_of(engine, "r1")
        assert (status["status"], status["expected"], status["pending"]) == ("CALLING", 8, 4)
        with pytest.raises(RoundConflictError, match="still being called"), transaction(engine) as session:
            give_truth(session, CONFIG, "r1", {"y": 1}, utc_now())
        await called(engine)
    found = predictions_of(engine, "r1")["hangs"]
    assert [p.status.value for p in found] == ["FAILED", "PENDING", "PENDING", "PENDING"]
    assert rows(engine, "SELECT failed_reason FROM predictions WHERE status = 'FAILED'") == [("timeout",)]


async def test_a_row_that_took_too_long_costs_neither_the_rows_behind_it_nor_the_model(engine: Engine) -> None:
    async def slow_on_first(method: str, arguments: list[Any]) -> Any:
        await asyncio.sleep(0 if arguments[1] else 2.5)
        return await doubles(method, arguments)

    limits = {"model_runner_timeout_seconds": 2, "model_runner_max_consecutive_timeouts": 2}
    async with tournament(engine, settings=limits, slow=slow_on_first) as cluster:
        cluster.nodes["slow"].stubborn = True
        queue(engine, "r1")
        await called(engine)
        assert cluster.reports == []
    found = rows(engine, "SELECT status, failed_reason FROM predictions ORDER BY scope_jsonb->'feature_index'")
    assert found == [("FAILED", "timeout"), ("PENDING", None), ("PENDING", None), ("PENDING", None)]


async def test_models_that_are_away_are_absent_and_rounds_wait_for_a_worker(engine: Engine) -> None:
    async with tournament(engine, stays=doubles, leaves=doubles) as cluster:
        await cluster.update("leaves", "STOPPED")
        await until_rows(engine, PRESENT, lambda found: [row.id for row in found] == ["stays"])
        queue(engine, "r1")
        await called(engine)
    statuses = {model_id: {p.status for p in ps} for model_id, ps in predictions_of(engine, "r1").items()}
    assert statuses == {"stays": {PredictionStatus.PENDING}, "leaves": {PredictionStatus.ABSENT}}
    queue(engine, "r2")
    assert status_of(engine, "r2")["status"] == "QUEUED"
    async with tournament(engine, stays=doubles):
        await called(engine)
    assert status_of(engine, "r2")["absent"] == status_of(engine, "r2")["pending"] == 4


async def test_a_node_that_does_not_answer_fails_its_rows_as_it_fails_slots(engine: Engine) -> None:
    async with tournament(engine, dies=doubles, good=doubles) as cluster:
        await cluster.nodes["dies"].stop()
        queue(engine, "r1")
        await called(engine)
    found = rows(engine, "SELECT model_id, status, failed_reason FROM predictions")
    assert {(row.model_id, row.status, (row.failed_reason or "").split(":")[0]) for row in found} == {
        ("good", "PENDING", ""),
        ("dies", "FAILED", "UNAVAILABLE"),
    }
    assert len(found) == 8


async def test_two_workers_call_each_model_once_a_row_and_a_drained_one_hands_over(
    engine: Engine, database_url: str, connect: Any
) -> None:
    features = [{"x": float(number)} for number in range(30)]
    calls: dict[str, list[int]] = {f"m{number}": [] for number in range(6)}

    def slow(name: str) -> Behaviour:
        async def behave(method: str, arguments: list[Any]) -> Any:
            calls[name].append(arguments[1])
            await asyncio.sleep(0.1)
            return await doubles(method, arguments)

        return behave

    cluster = ModelCluster(**{name: slow(name) for name in calls})
    async with cluster, predicting(engine, cluster, CONFIG) as stop_first:
        await until_rows(engine, PRESENT, lambda found: len(found) == 6)
        queue(engine, "r1", features)
        await until_rows(engine, "SELECT 1 FROM predictions", bool)
        # A second one joins in the middle of the round, gets half of the shards, and then all of them.
        async with predicting(connect(database_url), cluster, CONFIG):
            holders = "SELECT count(*) FROM leases WHERE expires_at > clock_timestamp() GROUP BY holder"
            await until_rows(engine, holders, lambda found: [row.count for row in found] == [6, 6])
            stop_first.set()
            await called(engine)
    assert calls == {name: list(range(30)) for name in calls}
    assert {len(ps) for ps in predictions_of(engine, "r1").values()} == {30}
    assert rows(engine, "SELECT DISTINCT status, failed_reason FROM predictions") == [("PENDING", None)]


async def test_what_a_dead_worker_left_is_gone_on_with_where_it_stopped(engine: Engine) -> None:
    async with tournament(engine, a=doubles, b=doubles) as cluster:
        queue(engine, "r1")
        await called(engine)
        with engine.begin() as connection:  # as if b had been asked two rows, and a all, when the worker died
            connection.execute(text("UPDATE slot_calls SET closed_at = NULL, epoch = 0"))
            connection.execute(
                text("DELETE FROM predictions WHERE model_id = 'b' AND (scope_jsonb->>'feature_index')::int > 1")
            )
        await called(engine)
        assert [arguments[1] for _, arguments in cluster.nodes["b"].calls] == [0, 1, 2, 3, 2, 3]
        assert len(cluster.nodes["a"].calls) == 4
    assert status_of(engine, "r1")["pending"] == 8


async def test_schedules_do_not_run_and_no_feed_is_needed(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO scheduled_prediction_configs (id, scope_key, scope_template_jsonb, schedule_jsonb, active,"
                " \"order\", activated_at) VALUES ('s', 'BTC-60', '{}', '{}', true, 0, now() - interval '1 day')"
            )
        )
    async with tournament(engine, a=doubles) as cluster:
        queue(engine, "r1", FEATURES[:1])
        await called(engine)
        assert {method for method, _ in cluster.nodes["a"].calls} == {"predict"}
    assert rows(engine, "SELECT active FROM scheduled_prediction_configs") == [(False,)]
    assert rows(engine, "SELECT 1 FROM prediction_slots WHERE round_id IS NULL") == []


async def test_a_config_that_changed_since_the_round_was_queued_costs_its_rows(engine: Engine) -> None:
    with transaction(engine) as session:
        builders.model(session, "a", presence="PRESENT")
    plain = CONFIG.model_copy(update={"call_method": CallMethodConfig()})
    queue(engine, "r1", [{"z": 1}], plain)
    async with tournament(engine, a=doubles):
        await called(engine)
    found = rows(engine, "SELECT status, failed_reason FROM predictions")
    assert found[0].status == "FAILED"
    assert found[0].failed_reason.startswith("features[0]: call_method predict needs x, which neither")


async def test_the_service_of_custom_endpoints_asks_and_scores(engine: Engine) -> None:
    with Session(engine) as session:
        service = TournamentPredictService(DBScoreRepository(session), config=CONFIG, feed_reader=object())
        with pytest.raises(NoPredictWorkerError, match=r"'r1' was not queued: no predict worker"):
            await service.run_inference("r1", FEATURES)
        async with tournament(engine, good=doubles, odd=raises_on_odd_rows):
            predictions = await service.run_inference("r1", FEATURES)
            with pytest.raises(RoundConflictError, match="exists already"):
                await service.run_inference("r1", FEATURES)
        seen = [(p.scope["feature_index"], p.model_id) for p in predictions]
        assert seen == [(index, name) for index in range(4) for name in ("good", "odd")]
        assert len(service.get_round_predictions("r1", "FAILED")) == 2
        truth = [{"y": 1}, {"y": 2}, None, {"y": 4}]
        scores = service.score_round("r1", truth)
        assert [s.value for s in scores] == [-2.0, -2.0, -2.0, -10.5]
        assert service.get_round_status("r1")["scored"] == 4
        assert service.score_round("r1", truth) == scores
        assert [s.value for s in service.score_round("r1", {"2": {"y": 0.5}})] == [-2.0, -2.0, -2.0, -0.5, -0.5, -10.5]
        with pytest.raises(RoundConflictError, match="feature row 1 has another ground truth"):
            service.score_round("r1", [{"y": 1}, {"y": 3}, None, {"y": 4}])


def test_the_service_says_what_it_cannot_do(engine: Engine) -> None:
    with Session(engine) as session:
        service = TournamentPredictService(DBScoreRepository(session), contract=CrunchConfig())
        with pytest.raises(RoundConflictError, match="mode='tournament'"):
            asyncio.run(service.run_inference("r1", FEATURES))
        with pytest.raises(UnknownRoundError, match="no round 'r1'"):
            service.get_round_status("r1")
        with pytest.raises(UnknownRoundError):
            service.score_round("r1", {"y": 1})
        assert service.get_round_predictions("r1") == []


def test_a_scoring_function_of_its_own_is_used(engine: Engine) -> None:
    with transaction(engine) as session:
        builders.model(session, "a", presence="PRESENT")
        queue_round(session, CONFIG, "r1", [{"x": 1}], START)
        slot = session.connection().execute(text("SELECT id, input_id FROM prediction_slots")).one()
        builders.prediction(session, "a", slot.input_id, slot_id=slot.id, scope_key="round:r1")
        session.connection().execute(text("UPDATE slot_calls SET closed_at = now()"))
    with Session(engine) as session:
        service = TournamentPredictService(
            DBScoreRepository(session), lambda prediction, truth: {"value": truth["y"] * 100}, config=CONFIG
        )
        assert [s.value for s in service.score_round("r1", {"y": 0.5}, at(-5))] == [50.0]
    due = rows(engine, "SELECT resolvable_at FROM predictions")[0].resolvable_at
    assert due == START, "not before the round itself"


@pytest.fixture
def one_model(engine: Engine) -> Engine:
    with transaction(engine) as session:
        builders.model(session, "a", presence="PRESENT")
    return engine


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ([], "0 rows"),
        ([{"x": 1}] * 10_001, "10001 rows"),
        ([{"x": 1}, 3], r"features\[1\] is no JSON object"),
        ([{"x": 1, "deep": [{"b": float("nan")}]}], r"features\[0\]\.deep\[0\]\.b is nan"),
        ([{"x": 1, "note": "a\x00b"}], r"features\[0\]\.note holds text"),
        ([{"x": "much"}], r"features\[0\]\.x is no FLOAT"),
        ([{"x": 1}, {"y": 1}], r"features\[1\]: call_method predict needs x, which neither"),
    ],
)
def test_features_that_cannot_be_asked_are_refused(one_model: Engine, features: list[Any], said: str) -> None:
    with pytest.raises(RoundInputError, match=said):
        queue(one_model, "r1", features)
    assert rows(one_model, "SELECT 1 FROM inputs UNION ALL SELECT 1 FROM prediction_slots") == []


def test_no_round_without_models_nor_twice(engine: Engine) -> None:
    with pytest.raises(RoundConflictError, match="no model is known"):
        queue(engine, "r1")
    with transaction(engine) as session:
        builders.model(session, "gone", presence="AWAY", presence_since=START)
        builders.model(session, "here", presence="PRESENT")
    queue(engine, "r1")
    with pytest.raises(RoundConflictError, match="'r1' exists already"):
        queue(engine, "r1", [{"x": 1}])
    assert len(rows(engine, "SELECT 1 FROM inputs")) == 4
    assert rows(engine, "SELECT model_ids_jsonb FROM slot_calls") == [(["here"],)]


@pytest.mark.parametrize("round_id", ["", "x" * 201, "a\x00b"])
def test_ids_that_cannot_be_stored_are_refused(one_model: Engine, round_id: str) -> None:
    with pytest.raises(RoundInputError, match="1 to 200 characters"):
        queue(one_model, round_id)


def test_the_database_itself_refuses_a_second_row_and_a_slot_of_nobody(one_model: Engine) -> None:
    queue(one_model, "r1")
    for change in (
        "UPDATE prediction_slots SET feature_index = 0",
        "UPDATE prediction_slots SET round_id = NULL",
        "UPDATE prediction_slots SET feature_index = NULL",
    ):
        with pytest.raises(Exception, match="prediction_slots"), one_model.begin() as connection:
            connection.execute(text(change))


def test_arguments_are_found_by_name() -> None:
    config = CrunchConfig(mode="tournament")
    row = {"subject": "ETH", "features": "its own", "round_id": 7, "n": "12", "big": 2**63}
    scope = row_scope(config, row, "r1", 3)
    assert scope == {
        "subject": "ETH",
        "step_seconds": 15,
        "resolve_horizon_seconds": 0,
        "round_id": "r1",
        "feature_index": 3,
    }

    def arguments(*args: tuple[str, str]) -> list[tuple[str, Any]]:
        method = CallMethodConfig(args=[CallMethodArg(name=name, type=kind) for name, kind in args])
        return row_arguments(method, row, scope)

    assert arguments(("features", "JSON"), ("round_id", "STRING"), ("scope", "JSON")) == [
        ("JSON", row),
        ("STRING", "r1"),
        ("JSON", scope),
    ]
    assert arguments(("n", "INT"), ("n", "FLOAT"), ("n", "STRING")) == [("INT", 12), ("FLOAT", 12.0), ("STRING", "12")]
    assert row_arguments(config.call_method, {}, row_scope(config, {}, "r1", 0)) == [
        ("STRING", "BTC"),
        ("INT", 0),
        ("INT", 15),
    ]
    with pytest.raises(RoundInputError, match=r"features\[3\]\.big does not fit into 64 bits"):
        arguments(("big", "INT"))


TRUTHS = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=8).filter(
    lambda ys: any(y is not None for y in ys)
)


@given(TRUTHS)
def test_a_list_and_an_object_by_index_say_the_same(ys: list[float | None]) -> None:
    expected = {index: {"y": y} for index, y in enumerate(ys) if y is not None}
    listed = [None if y is None else {"y": y} for y in ys]
    assert truths_by_index(listed, len(ys), Truth) == expected
    assert truths_by_index({str(index): truth for index, truth in expected.items()}, len(ys), Truth) == expected
    assert truths_by_index(expected, len(ys), Truth) == expected


def test_an_object_without_indexes_is_the_truth_of_every_row() -> None:
    assert truths_by_index({"y": 2}, 3, Truth) == {0: {"y": 2.0}, 1: {"y": 2.0}, 2: {"y": 2.0}}
    assert truths_by_index({"y": 2, "note": "kept"}, 1, Truth) == {0: {"y": 2.0, "note": "kept"}}


@pytest.mark.parametrize(
    ("ground_truth", "said"),
    [
        ([{"y": 1}], "holds 1 entries; the round has 2"),
        ([None, None], "holds no truth"),
        ({}, "holds no truth"),
        ([{"y": 1}, 2], r"ground_truth\[1\] is no JSON object"),
        ({"0": {"y": 1}, "y": 2}, "mixes feature indexes with other keys"),
        ({"2": {"y": 1}}, r"ground_truth\[2\]: the round has only 2"),
        ({"9" * 40: {"y": 1}}, "y: Field required"),
        ([{"y": 1}, {"z": 1}], r"ground_truth\[1\]\.y: Field required"),
        ([{"y": 1}, {"y": float("inf")}], r"ground_truth\[1\]\.y is inf"),
        ({"y": 1, "note": "\ud800"}, r"ground_truth\.note holds text"),
        ("yes", "neither a list nor an object"),
    ],
)
def test_truths_of_another_shape_are_refused(ground_truth: Any, said: str) -> None:
    with pytest.raises(RoundInputError, match=said):
        truths_by_index(ground_truth, 2, Truth)


def test_the_worker_starts_in_either_spelling_and_says_what_models_do_not_receive() -> None:
    settings = builders.settings_of()
    with capture_logs() as logs:
        check_predict(CONFIG, settings)
        assert logs == []
        check_predict(CrunchConfig(predict_service_class=TournamentPredictService), settings)
    assert "an argument named features" in logs[0]["event"]


async def test_a_round_is_left_alone_by_a_worker_of_schedules(engine: Engine) -> None:
    with transaction(engine) as session:
        builders.model(session, "a", presence="PRESENT")
    queue(engine, "r1")
    async with tournament(engine, CrunchConfig(scheduled_predictions=[]), a=steady):
        await asyncio.sleep(0.2)
    assert rows(engine, "SELECT 1 FROM predictions") == []
    assert status_of(engine, "r1")["status"] == "QUEUED"
