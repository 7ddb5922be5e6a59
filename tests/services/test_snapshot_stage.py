"""The snapshot stage: every score counted once, by one leader, and the leaderboard that follows."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import builders
import psycopg
import pytest
from builders import at, one, rows
from sqlalchemy import Engine, text
from sqlmodel import Session
from structlog.testing import capture_logs

from coordinator_node.crunch_config import Aggregation, AggregationWindow, CrunchConfig
from coordinator_node.db.engine import SERVER_OPTIONS
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.leases import LeaseFence, LeaseLostError
from coordinator_node.runtime.notify import SNAPSHOTS, libpq_url
from coordinator_node.services.ranking import RankingError
from coordinator_node.services.snapshot import SnapshotStage, observations, stage

SNAPSHOT_ROWS = "SELECT * FROM snapshots ORDER BY model_id, period_end, id"


@pytest.fixture
def fence(engine: Engine) -> LeaseFence:
    with Session(engine) as session:
        held = builders.lease(session)
        session.commit()
    return held


def stage_of(engine: Engine, environ: dict[str, str] | None = None, **fields: Any) -> SnapshotStage:
    return SnapshotStage(engine, CrunchConfig(**{"metrics": [], **fields}), builders.settings_of(**(environ or {})))


def test_a_snapshot_sums_up_what_is_new_of_each_model(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        for model_id in ("a", "b"):
            builders.model(session, model_id)
        builders.scored(session, "a", 1.0, performed_at=at(0), resolvable_at=at(60))
        builders.scored(session, "a", 4.0, performed_at=at(15), resolvable_at=at(75), scope_key="ETH-60")
        failed = builders.prediction(session, "a", builders.market_input(session).id, status="FAILED")
        builders.score(session, failed.id, 100.0, success=False, failed_reason="why not")
        only_failed = builders.prediction(session, "b", builders.market_input(session).id, status="FAILED")
        builders.score(session, only_failed.id, success=False, result_jsonb={})
        session.commit()
    result = stage_of(engine).run_once(at(80), fence)
    assert result.counts == {"counted": 4, "missed": 0, "snapshots": 2, "leaderboards": 1}
    a, b = rows(engine, SNAPSHOT_ROWS)
    assert (a["period_start"], a["period_end"], a["created_at"]) == (at(0), at(75), at(80))
    assert (a["prediction_count"], a["result_summary_jsonb"]) == (2, {"value": 2.5})
    assert a["meta_jsonb"] == {
        "failed_count": 1,
        "absent_count": 0,
        "missing_count": 1,
        "due_count": 3,
        "coverage": 2 / 3,
        "scopes": {
            "BTC-60": {"prediction_count": 1, "missing_count": 1, "value": 1.0},
            "ETH-60": {"prediction_count": 1, "missing_count": 0, "value": 4.0},
        },
    }
    assert (b["prediction_count"], b["result_summary_jsonb"]) == (0, {})
    assert b["meta_jsonb"]["scopes"] == {"BTC-60": {"prediction_count": 0, "missing_count": 1, "value": None}}
    assert (b["meta_jsonb"]["failed_count"], b["meta_jsonb"]["coverage"]) == (1, 0.0)
    assert a["cycle_id"] == b["cycle_id"] is not None
    counted = rows(engine, "SELECT snapshot_state, snapshot_id FROM scores")
    assert {row["snapshot_state"] for row in counted} == {"COUNTED"}
    assert sorted(row["snapshot_id"] for row in counted) == sorted([a["id"]] * 3 + [b["id"]])
    firsts = rows(engine, "SELECT first_scored_at FROM models ORDER BY id")
    assert [row["first_scored_at"] for row in firsts] == [at(61), None]


def test_every_score_is_counted_once(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.model(session, "a", first_scored_at=at(7))
        builders.scored(session, "a")
        session.commit()
    made = stage_of(engine)
    assert made.run_once(at(61), fence).counts["counted"] == 1
    assert made.run_once(at(62), fence).counts == {"counted": 0, "missed": 0, "snapshots": 0, "leaderboards": 0}
    with Session(engine) as session:
        builders.scored(session, "a", 5.0, resolvable_at=at(70))
        builders.score(session, builders.scored(session, "a", resolvable_at=at(71)).id, generation=None)
        older = builders.prediction(session, "a", builders.market_input(session).id, status="SCORED")
        builders.score(session, older.id, 999.0, snapshot_state="COUNTED", generation=None)
        session.commit()
    assert made.run_once(at(72), fence).counts["counted"] == 3
    assert one(engine, "SELECT sum(prediction_count) FROM snapshots") == 4
    assert one(engine, "SELECT first_scored_at FROM models") == at(7)


def test_more_scores_than_a_pass_counts_are_counted_by_the_next(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SCORES_AT_ONCE", 4)
    with Session(engine) as session:
        builders.model(session, "a")
        for n in range(6):
            builders.scored(session, "a", resolvable_at=at(60 + n))
        session.commit()
    made = stage_of(engine)
    assert made.run_once(at(70), fence).again
    assert not made.run_once(at(70), fence).again
    assert [row["prediction_count"] for row in rows(engine, SNAPSHOT_ROWS)] == [4, 2]


def test_a_lost_lease_writes_nothing(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        builders.scored(session, "a")
        session.connection().execute(text("UPDATE leases SET epoch = 2"))
        session.commit()
    with pytest.raises(LeaseLostError):
        stage_of(engine).run_once(at(61), fence)
    for table in ("snapshots", "leaderboards", "scores WHERE snapshot_state = 'COUNTED'"):
        assert one(engine, f"SELECT count(*) FROM {table}") == 0


def test_a_pass_that_ends_before_its_commit_leaves_nothing(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        builders.scored(session, "a")
        session.commit()
    made = stage_of(engine)

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("coordinator_node.services.snapshot.store._set_first_scores", killed)
        with pytest.raises(KeyboardInterrupt):
            made.run_once(at(61), fence)
    assert one(engine, "SELECT count(*) FROM snapshots") == 0
    assert one(engine, "SELECT snapshot_state FROM scores") == "PENDING"
    assert made.run_once(at(61), fence).counts["counted"] == 1


def aggregate_badly(score_results: list[dict[str, Any]]) -> Any:
    value = score_results[0]["value"]
    if value == 1:
        raise ZeroDivisionError("by the operator")
    if value == 6:
        sys.exit("by the operator")
    return {2: {"value": math.nan, "best": 3.0}, 3: 7, 4: {"value": "a\x00b"}}.get(value, {"value": value})


def test_a_bad_aggregator_costs_its_model_only(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        for value in range(1, 7):
            builders.scored(session, builders.model(session, f"m{value}").id, value)
        session.commit()
    with capture_logs() as logs:
        stage_of(engine, aggregate_snapshot=aggregate_badly).run_once(at(61), fence)
    found = rows(engine, SNAPSHOT_ROWS)
    assert [row["result_summary_jsonb"] for row in found] == [
        {},
        {"value": None, "best": 3.0},
        {},
        {},
        {"value": 5},
        {},
    ]
    assert [row["prediction_count"] for row in found] == [1] * 6
    errors = [row["meta_jsonb"].get("error") for row in found]
    assert errors[0] == "the snapshot aggregator failed: ZeroDivisionError: by the operator"
    assert "TypeError: it returned a int" in errors[2]
    assert "database cannot store" in errors[3]
    assert "SystemExit: by the operator" in errors[5]
    assert (errors[1], errors[4]) == (None, None)
    assert sum("snapshot without a summary" in entry["event"] for entry in logs) == 4
    board = one(engine, "SELECT entries_jsonb FROM leaderboards")
    assert [(entry["model_id"], entry["rank"]) for entry in board] == [
        ("m5", 1),
        ("m1", None),
        ("m2", None),
        ("m3", None),
        ("m4", None),
        ("m6", None),
    ]


def test_the_environments_aggregator_counts_unless_the_config_has_one(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("operators_aggregator")
    module.largest = lambda score_results: {"value": max(r["value"] for r in score_results)}  # type: ignore[attr-defined]  # a module made for the test
    monkeypatch.setitem(sys.modules, "operators_aggregator", module)
    environ = {"MODEL_SCORE_AGGREGATOR": "operators_aggregator:largest"}
    with Session(engine) as session:
        builders.model(session, "a")
        for value in (1, 9, 2):
            builders.scored(session, "a", value)
        session.commit()
    stage_of(engine, environ).run_once(at(61), fence)
    assert one(engine, "SELECT result_summary_jsonb FROM snapshots") == {"value": 9}
    with Session(engine) as session:
        builders.scored(session, "a", 3, resolvable_at=at(90))
        session.commit()
    stage_of(engine, environ, aggregate_snapshot=lambda results: {"value": -1}).run_once(at(91), fence)
    assert rows(engine, SNAPSHOT_ROWS)[1]["result_summary_jsonb"] == {"value": -1}
    with pytest.raises(ConfigurationError, match="no_such_module"):
        stage_of(engine, {"MODEL_SCORE_AGGREGATOR": "no_such_module:f"})


def test_metrics_are_taken_over_the_window_and_null_where_undefined(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        builders.model(session, "b")
        for n in range(30):
            row = builders.market_input(session, actuals_jsonb={"profit": float(n % 7)})
            made = builders.prediction(
                session,
                "a",
                row.id,
                status="SCORED",
                performed_at=at(n),
                resolvable_at=at(n + 10),
                inference_output_jsonb={"value": float(n % 7)},
            )
            builders.score(session, made.id, 0.5, snapshot_state="PENDING" if n > 20 else "COUNTED")
        builders.scored(session, "b")
        session.commit()
    stage_of(engine, metrics=["ic", "max_drawdown"]).run_once(at(61), fence)
    a, b = rows(engine, SNAPSHOT_ROWS)
    assert a["prediction_count"] == 9
    assert a["result_summary_jsonb"] == {"value": 0.5, "ic": pytest.approx(1.0), "max_drawdown": 0.0}
    assert b["result_summary_jsonb"]["ic"] is None


def test_a_clock_that_was_ahead_for_a_while_costs_no_observations(engine: Engine, fence: LeaseFence) -> None:
    def score_more(seconds: range, profit: float) -> None:
        with Session(engine) as session:
            for n in seconds:
                row = builders.market_input(session, actuals_jsonb={"profit": profit})
                builders.scored(session, "a", input_id=row.id, performed_at=at(n), resolvable_at=at(n + 10))
            session.commit()

    with Session(engine) as session:
        builders.model(session, "a")
        session.commit()
    stage = stage_of(engine, metrics=["hit_rate"])
    score_more(range(10), 1.0)
    stage.run_once(at(61), fence)
    stage.run_once(at(30 * 86_400), fence)
    score_more(range(10, 15), -1.0)
    stage.run_once(at(62), fence)
    assert rows(engine, SNAPSHOT_ROWS)[-1]["result_summary_jsonb"]["hit_rate"] == pytest.approx(10 / 15)


def test_a_metric_sees_the_documented_shapes(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations, "NEWEST_OBSERVATIONS", 2)
    calls: dict[str, Any] = {}

    def remember(metrics: list[str], predictions: list[Any], scores: list[Any], context: Any) -> dict[str, Any]:
        calls[context.model_id] = (metrics, predictions, scores, context)
        return {"ic": math.nan, "extra": 2, "no\x00name": 1}

    with Session(engine) as session:
        truth = {"BTC-60@2026-03-01T12:01:30.000000Z": {"profit": 0.5}}
        shared = builders.market_input(session, id="shared", scope_jsonb=None, actuals_jsonb=truth)
        for model_id in ("a", "__ensemble_e__"):
            builders.model(session, model_id)
            builders.scored(session, model_id, -1.0, resolvable_at=at(-168 * 3600 + 100))
            builders.scored(session, model_id, -2.0, performed_at=at(1), resolvable_at=at(61))
            builders.scored(session, model_id, -3.0, performed_at=at(2), resolvable_at=at(62))
            made = builders.prediction(
                session, model_id, shared.id, performed_at=at(3), resolvable_at=at(90), status="SCORED"
            )
            builders.score(session, made.id, 3.0, scored_at=at(95))
        session.commit()
    stage_of(engine, metrics=["ic"], compute_metrics=remember).run_once(at(100), fence)
    names, predictions, scores, context = calls["a"]
    assert names == ["ic"]
    assert [score["result"]["value"] for score in scores] == [-3.0, 3.0]
    keys = {"input_id": "shared", "scope_key": "BTC-60"}
    assert predictions[1] == {
        "inference_output": {"value": 1.0},
        "performed_at": at(3),
        "scope": {"subject": "BTC"},
        **keys,
    }
    assert {name: scores[1][name] for name in ("scored_at", "input_id", "scope_key")} == {"scored_at": at(95), **keys}
    assert scores[1]["ground_truth"] == {"actual_return": None, "profit": 0.5}
    assert (context.window_start, context.window_end) == (at(100 - 168 * 3600), at(100))
    assert set(context.all_model_predictions) == {"a"}
    assert set(context.ensemble_predictions) == {"__ensemble_e__"}
    assert rows(engine, SNAPSHOT_ROWS)[1]["result_summary_jsonb"] == {"value": -2 / 3, "ic": None, "extra": 2.0}


@pytest.mark.parametrize("fails", [lambda *given: 1 / 0, lambda *given: sys.exit(1)])
def test_metrics_that_raise_are_null_and_logged_once(
    engine: Engine, fence: LeaseFence, fails: Callable[..., Any]
) -> None:
    with Session(engine) as session:
        for model_id in "ab":
            builders.scored(session, builders.model(session, model_id).id)
        session.commit()
    with capture_logs() as logs:
        stage_of(engine, metrics=["ic"], compute_metrics=fails).run_once(at(61), fence)
    assert [row["result_summary_jsonb"] for row in rows(engine, SNAPSHOT_ROWS)] == [{"value": 1.0, "ic": None}] * 2
    assert [entry["log_level"] for entry in logs if "compute_metrics" in entry["event"]] == ["warning"]


def test_metrics_may_take_longer_than_a_transaction_may_lie_idle(
    database_url: str, connect: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SERVER_OPTIONS, "idle_in_transaction_session_timeout", "50ms")
    engine = connect(database_url)
    with Session(engine) as session:
        builders.model(session, "a")
        builders.scored(session, "a")
        held = builders.lease(session)
        session.commit()

    def slow(*_: Any) -> dict[str, float]:
        time.sleep(0.2)
        return {"slow": 1.0}

    stage_of(engine, compute_metrics=slow).run_once(at(61), held)
    assert rows(engine, SNAPSHOT_ROWS)[0]["result_summary_jsonb"] == {"value": 1.0, "slow": 1.0}


def test_a_snapshot_lies_in_one_checkpoint_period(engine: Engine, fence: LeaseFence) -> None:
    """Periods of 60 s from the first prediction's time: ends at 59.999999 s and at 60 s are on two sides."""
    with Session(engine) as session:
        builders.model(session, "a")
        for end in (59.999999, 10, 60, 119, 125):
            builders.scored(session, "a", performed_at=at(0), resolvable_at=at(end))
        session.commit()
    stage_of(engine, {"CHECKPOINT_INTERVAL_SECONDS": "60"}).run_once(at(130), fence)
    found = rows(engine, SNAPSHOT_ROWS)
    assert [(row["period_end"], row["prediction_count"]) for row in found] == [
        (at(59.999999), 2),
        (at(119), 2),
        (at(125), 1),
    ]
    assert len({row["cycle_id"] for row in found}) == 3
    assert not any("late" in row["meta_jsonb"] for row in found)


def test_scores_of_a_closed_period_are_flagged_and_count_in_the_open_one(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        builders.checkpoint(session, at(0), at(60))
        for end in (59, 61):
            builders.scored(session, "a", performed_at=at(0), resolvable_at=at(end))
        session.commit()
    stage_of(engine, {"CHECKPOINT_INTERVAL_SECONDS": "60"}).run_once(at(62), fence)
    late, timely = rows(engine, SNAPSHOT_ROWS)
    assert late["meta_jsonb"]["late"] == {"counts_in": at(60).isoformat()}
    assert "late" not in timely["meta_jsonb"]


def test_before_checkpoints_start_nothing_is_late(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.scored(session, builders.model(session, "a").id)
        session.commit()
    stage_of(engine, {"CHECKPOINT_START": "2030-01-01T00:00:00Z"}).run_once(at(61), fence)
    assert "late" not in one(engine, "SELECT meta_jsonb FROM snapshots")


WINDOWS = {"short": AggregationWindow(hours=1), "long": AggregationWindow(hours=48)}


def test_the_leaderboard_and_the_models_own_scores(engine: Engine, fence: LeaseFence) -> None:
    config = {"aggregation": Aggregation(windows=WINDOWS, ranking_key="short")}
    with Session(engine) as session:
        for model_id in ("good", "bad", "idle", "__ensemble_all__"):
            builders.model(session, model_id)
        builders.scored(session, "good", 3.0, resolvable_at=at(-7200))
        builders.scored(session, "good", 1.0)
        builders.scored(session, "good", 2.0, scope_key="ETH-60")
        builders.scored(session, "bad", 0.5)
        builders.scored(session, "__ensemble_all__", 50.0)
        session.commit()
    made = stage_of(engine, **config)
    made.run_once(at(0), fence)
    [board] = rows(engine, "SELECT created_at, entries_jsonb FROM leaderboards")
    assert board["created_at"] == at(0)
    # Nothing is known yet of what resolves after the leaderboard's own time.
    assert [entry["rank"] for entry in board["entries_jsonb"]] == [None] * 4
    with Session(engine) as session:
        builders.scored(session, "good", 2.0, resolvable_at=at(59))
        session.commit()
    made.run_once(at(60), fence)
    board = rows(engine, "SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC")[0]["entries_jsonb"]
    assert [(entry["model_id"], entry["rank"]) for entry in board] == [
        ("good", 1),
        ("bad", 2),
        ("idle", None),
        ("__ensemble_all__", None),
    ]
    good = board[0]["score"]
    assert good["ranking"] == {"key": "short", "value": 5 / 3, "direction": "desc"}
    assert good["metrics"] == {"short": 5 / 3, "long": 2.0, "value": 1.5}
    assert board[3]["score"]["metrics"]["short"] == 50.0
    model = rows(engine, "SELECT overall_score_jsonb, scores_by_scope_jsonb FROM models WHERE id = 'good'")[0]
    assert model["overall_score_jsonb"] == good
    by_scope = {scope["scope_key"]: scope for scope in model["scores_by_scope_jsonb"]}
    assert by_scope["ETH-60"] == {
        "scope_key": "ETH-60",
        "metrics": {"short": 2.0, "long": 2.0},
        "ranking": {"key": "short", "value": 2.0, "direction": "desc"},
    }
    idle = rows(engine, "SELECT overall_score_jsonb, scores_by_scope_jsonb FROM models WHERE id = 'idle'")[0]
    assert idle["overall_score_jsonb"]["ranking"]["value"] is None
    assert idle["scores_by_scope_jsonb"] == []


def test_the_leaderboard_follows_the_cycles(engine: Engine, fence: LeaseFence) -> None:
    made = stage_of(engine)
    assert made.run_once(at(0), fence).counts["leaderboards"] == 0
    with Session(engine) as session:
        builders.model(session, "a")
        session.commit()
    # The first as soon as there are models, then every tenth cycle, and whenever something was scored.
    written = [made.run_once(at(n), fence).counts["leaderboards"] for n in range(12)]
    assert written == [1] + [0] * 9 + [1, 0]
    with Session(engine) as session:
        builders.scored(session, "a")
        session.commit()
    assert made.run_once(at(61), fence).counts["leaderboards"] == 1


def test_listeners_are_woken_by_a_new_leaderboard(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        builders.scored(session, builders.model(session, "a").id)
        session.commit()
    with psycopg.connect(libpq_url(engine), autocommit=True) as listener:
        listener.execute(f"LISTEN {SNAPSHOTS}".encode())
        stage_of(engine).run_once(at(61), fence)
        assert [note.channel for note in listener.notifies(timeout=5, stop_after=1)] == [SNAPSHOTS]


def test_a_ranker_that_fails_leaves_the_snapshots_and_is_tried_again(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("moody_ranker")
    monkeypatch.setitem(sys.modules, "moody_ranker", module)

    def rank_by(function: Callable[..., Any]) -> None:
        module.rank = function  # type: ignore[attr-defined]  # a module made for the test

    moods = [lambda: 1 / 0, lambda: None]
    rank_by(lambda entries, aggregation: (moods.pop(0)(), entries)[1])
    with Session(engine) as session:
        builders.scored(session, builders.model(session, "a").id)
        session.commit()
    made = stage_of(engine, {"LEADERBOARD_RANKER": "moody_ranker:rank"})
    with pytest.raises(RankingError, match="ZeroDivisionError"):
        made.run_once(at(61), fence)
    assert one(engine, "SELECT count(*) FROM snapshots") == 1
    assert made.run_once(at(62), fence).counts == {"counted": 0, "missed": 0, "snapshots": 0, "leaderboards": 1}
