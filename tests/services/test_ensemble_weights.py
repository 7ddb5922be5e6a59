"""What each member weighs in the config's ensembles: computed by the leader, stored with its time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import builders
import pytest
from builders import at, one, rows
from sqlalchemy import Engine
from sqlmodel import Session
from structlog.testing import capture_logs

from coordinator_node.crunch_config import CrunchConfig, EnsembleConfig
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.ensemble import equal_weight, inverse_error_variance, inverse_variance, min_metric, top_n
from coordinator_node.services.snapshot import SnapshotStage

WEIGHTS = "SELECT model_id, computed_at, weights_jsonb AS weights FROM ensemble_weights ORDER BY computed_at, model_id"

# What the models said, and what came of it.
SIGNALS = {"calm": [1.0, 1.1, 0.9, 1.0], "loud": [1.0, -2.0, 3.0, -1.0], "right": [0.1, -0.2, 0.3, 0.0]}
RETURNS = [0.1, -0.2, 0.3, 0.1]


@pytest.fixture
def fence(engine: Engine) -> LeaseFence:
    with Session(engine) as session:
        held = builders.lease(session)
        session.commit()
    return held


@pytest.fixture(autouse=True)
def said(engine: Engine) -> None:
    """Three models over four slots; the score is what they said."""
    with Session(engine) as session:
        for model_id in SIGNALS:
            builders.model(session, model_id)
        for n, outcome in enumerate(RETURNS):
            row = builders.market_input(session, actuals_jsonb={"profit": outcome})
            for model_id, signals in SIGNALS.items():
                made = builders.prediction(
                    session,
                    model_id,
                    row.id,
                    status="SCORED",
                    performed_at=at(n),
                    resolvable_at=at(n + 60),
                    inference_output_jsonb={"value": signals[n]},
                )
                builders.score(session, made.id, signals[n])
        session.commit()


def stage_of(engine: Engine, *ensembles: EnsembleConfig) -> SnapshotStage:
    return SnapshotStage(engine, CrunchConfig(metrics=["ic"], ensembles=list(ensembles)), builders.settings_of())


def as_rows() -> dict[str, list[dict[str, Any]]]:
    """What an operator's own strategy is given."""
    return {
        model_id: [
            {"inference_output": {"value": signal}, "actual_return": outcome}
            for signal, outcome in zip(signals, RETURNS, strict=True)
        ]
        for model_id, signals in SIGNALS.items()
    }


@pytest.mark.parametrize("strategy", [None, inverse_variance, inverse_error_variance, equal_weight])
def test_the_leaders_weights_are_those_of_the_strategy(
    engine: Engine, fence: LeaseFence, strategy: Callable[..., Any] | None
) -> None:
    stage_of(engine, EnsembleConfig(name="all", strategy=strategy)).run_once(at(100), fence)
    [row] = rows(engine, WEIGHTS)
    assert (row["model_id"], row["computed_at"]) == ("__ensemble_all__", at(100))
    assert row["weights"] == pytest.approx((strategy or inverse_variance)({}, as_rows()))
    assert sum(row["weights"].values()) == pytest.approx(1.0)


def test_the_errors_variance_favours_who_is_right(engine: Engine, fence: LeaseFence) -> None:
    stage_of(engine, EnsembleConfig(name="e", strategy=inverse_error_variance)).run_once(at(100), fence)
    weights = rows(engine, WEIGHTS)[0]["weights"]
    assert max(weights, key=weights.__getitem__) == "right"


def test_an_ensemble_is_a_flagged_model_that_the_leaderboard_lists_unranked(engine: Engine, fence: LeaseFence) -> None:
    stage_of(engine, EnsembleConfig(name="all")).run_once(at(100), fence)
    assert one(engine, "SELECT meta_jsonb FROM models WHERE id = '__ensemble_all__'") == {"ensemble": "all"}


def test_filters_choose_the_members(engine: Engine, fence: LeaseFence) -> None:
    stage_of(
        engine,
        EnsembleConfig(name="best", strategy=equal_weight, model_filter=top_n(1)),
        EnsembleConfig(name="bold", strategy=equal_weight, model_filter=min_metric("score_recent", 0.1)),
        EnsembleConfig(name="mine", strategy=equal_weight, model_filter=lambda model_id, metrics: model_id != "calm"),
        EnsembleConfig(name="off", enabled=False),
    ).run_once(at(100), fence)
    assert {row["model_id"]: set(row["weights"]) for row in rows(engine, WEIGHTS)} == {
        "__ensemble_best__": {"calm"},
        "__ensemble_bold__": {"calm", "loud"},
        "__ensemble_mine__": {"loud", "right"},
    }


def test_weights_that_stay_are_not_stored_again_and_new_ones_are(engine: Engine, fence: LeaseFence) -> None:
    made = stage_of(engine, EnsembleConfig(name="all", strategy=equal_weight))
    made.run_once(at(100), fence)
    with Session(engine) as session:
        builders.scored(session, "calm", resolvable_at=at(110))
        session.commit()
    made.run_once(at(120), fence)
    assert len(rows(engine, WEIGHTS)) == 1
    with Session(engine) as session:
        builders.scored(session, builders.model(session, "new").id, resolvable_at=at(130))
        session.commit()
    made.run_once(at(140), fence)
    assert [(row["computed_at"], len(row["weights"])) for row in rows(engine, WEIGHTS)] == [(at(100), 3), (at(140), 4)]


@pytest.mark.parametrize("fails", [lambda *given: 1 / 0, lambda *given: sys.exit(2), lambda *given: None])
def test_a_strategy_or_filter_that_fails_costs_its_ensemble_only(
    engine: Engine, fence: LeaseFence, fails: Callable[..., Any]
) -> None:
    with capture_logs() as logs:
        stage_of(
            engine,
            EnsembleConfig(name="broken", strategy=fails),
            EnsembleConfig(name="whole", strategy=equal_weight),
        ).run_once(at(100), fence)
    assert [row["model_id"] for row in rows(engine, WEIGHTS)] == ["__ensemble_whole__"]
    assert [entry["ensemble"] for entry in logs if entry["event"] == "an ensemble keeps its weights"] == ["broken"]
    assert one(engine, "SELECT count(*) FROM leaderboards") == 1


def test_an_operators_strategy_is_given_metrics_and_predictions_with_their_returns(
    engine: Engine, fence: LeaseFence
) -> None:
    given: dict[str, Any] = {}

    def remember(model_metrics: dict[str, Any], predictions: dict[str, Any]) -> dict[str, float]:
        given.update(metrics=model_metrics, predictions=predictions)
        return {"calm": 3.0, "loud": 1.0, "stranger": 5.0, "right": float("nan")}

    stage_of(engine, EnsembleConfig(name="mine", strategy=remember)).run_once(at(100), fence)
    assert set(given["metrics"]) == set(given["predictions"]) == set(SIGNALS)
    assert given["metrics"]["calm"]["score_recent"] == pytest.approx(1.0)
    assert [row["actual_return"] for row in given["predictions"]["loud"]] == RETURNS
    assert [row["inference_output"]["value"] for row in given["predictions"]["loud"]] == SIGNALS["loud"]
    assert rows(engine, WEIGHTS)[0]["weights"] == {"calm": 0.75, "loud": 0.25}
