"""An ensemble from the weights of the score stage to the leaderboard: models answer over gRPC, every stage is real."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import builders
import httpx
import pytest
from invariants import RULES, broken_rules
from model_cluster import ModelCluster
from predict_cases import UNBALANCED, called, rows, store_prices, until_rows
from sqlalchemy import Engine
from test_predict import CONFIG as SCHEDULED
from test_predict import answering, predicting, raise_it

from coordinator_node.api.app import create_app
from coordinator_node.crunch_config import CrunchConfig, EnsembleConfig
from coordinator_node.db.engine import transaction
from coordinator_node.entities.emission import FRAC_64_MULTIPLIER
from coordinator_node.entities.times import utc_now
from coordinator_node.services.checkpoint import CheckpointStage
from coordinator_node.services.ensemble import equal_weight
from coordinator_node.services.score import ScoreStage
from coordinator_node.services.snapshot import SnapshotStage

MAIN, OFF = "__ensemble_main__", "__ensemble_off__"
ENVIRON = {"CHECKPOINT_INTERVAL_SECONDS": "60", "API_ROUTES_DIR": "no-such-folder"}
SIGNALS = "SELECT * FROM predictions WHERE starts_with(model_id, '__ensemble_') ORDER BY performed_at"
OF_SLOTS = {rule for rule in RULES if rule.startswith(("every model known in a called slot", "an ensemble has one"))}


def score(prediction: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    return {"value": prediction["value"] * truth["profit"], "profit": truth["profit"]}


CONFIG = SCHEDULED.model_copy(
    update={
        "ensembles": [
            EnsembleConfig(name="main", strategy=equal_weight),
            EnsembleConfig(name="off", strategy=equal_weight, enabled=False),
        ],
        "scoring_function": score,
        "crunch_pubkey": "crunch",
        "metrics": ["model_correlation"],
    }
)


class ScoreWorker:
    """What the score worker does in one go, at times that the test chooses."""

    def __init__(self, engine: Engine, config: CrunchConfig) -> None:
        settings = builders.settings_of(**ENVIRON)
        self._scores = ScoreStage(engine, config, settings)
        self._snapshots = SnapshotStage(engine, config, settings)
        with transaction(engine) as session:
            self._fence = builders.lease(session)

    def run(self, outcomes_at: datetime, now: datetime) -> None:
        """Score what is due at the first time, and make snapshots, leaderboard and weights as of the second."""
        while self._scores.run_once(outcomes_at).counts.get("scored"):
            pass
        self._snapshots.run_once(now, self._fence)


async def test_from_the_answers_of_a_slot_to_the_leaderboard(engine: Engine) -> None:
    begun = utc_now()
    later = begun + timedelta(minutes=2)
    store_prices(engine, later, count=200)
    worker = ScoreWorker(engine, CONFIG)
    behaviours = {"low": answering(0.5), "high": answering(1.5), "raises": raise_it}
    async with ModelCluster(**behaviours) as cluster, predicting(engine, cluster, CONFIG):
        await called(engine, 1)
        await until_rows(engine, "SELECT 1 FROM predictions WHERE status = 'PENDING'", lambda found: len(found) >= 2)
        assert rows(engine, SIGNALS) == [], "no weights yet"
        await asyncio.to_thread(worker.run, later, utc_now())
        weighed_at = rows(engine, "SELECT computed_at FROM ensemble_weights")[0].computed_at
        await until_rows(engine, SIGNALS, lambda found: len(found) >= 2)
    signals = rows(engine, SIGNALS)
    for signal in signals:
        assert (signal.model_id, signal.status) == (MAIN, "PENDING")
        assert signal.performed_at >= weighed_at
        assert signal.answered_at - signal.performed_at < timedelta(seconds=30)
        assert signal.answered_at < signal.resolvable_at, "there before the outcome"
        assert signal.inference_output_jsonb == {"value": 1.0}
        assert signal.meta_jsonb["weights"] == pytest.approx({"low": 0.5, "high": 0.5})
    assert rows(engine, UNBALANCED) == []
    assert len(OF_SLOTS) == 2
    check_rules(engine)
    await asyncio.to_thread(worker.run, later, later)
    check_scores(engine, len(signals))
    await check_leaderboard(engine)
    check_emission(engine, later)


def check_rules(engine: Engine) -> None:
    """The invariants of slots and signals; those of a drained database do not hold yet."""
    broken = broken_rules(engine)
    assert not broken.keys() & OF_SLOTS, broken


def check_scores(engine: Engine, count: int) -> None:
    """Each signal is scored by the truth of its slot, which is the members' too, and counted in a snapshot."""
    query = """
        SELECT p.model_id, p.slot_id, p.inference_output_jsonb->'value' AS said, s.result_jsonb AS result
        FROM predictions p JOIN scores s ON s.prediction_id = p.id JOIN snapshots n ON n.id = s.snapshot_id
        WHERE p.status = 'SCORED' AND s.success AND n.model_id = p.model_id
    """
    scored = rows(engine, query)
    own = [row for row in scored if row.model_id == MAIN]
    assert len(own) == count
    assert {row.model_id for row in scored} == {"low", "high", MAIN}
    profits = {row.slot_id: row.result["profit"] for row in scored if row.model_id == "low"}
    for row in scored:
        assert row.result["profit"] == profits[row.slot_id]
        assert row.result["value"] == pytest.approx(row.said * profits[row.slot_id])


async def check_leaderboard(engine: Engine) -> None:
    """Hidden unless asked for, and without a rank then; no other model is measured against it."""
    app = create_app(builders.settings_of(**ENVIRON), engine, CONFIG)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        plain = (await client.get("/reports/leaderboard")).json()
        whole = (await client.get("/reports/leaderboard", params={"include_ensembles": True})).json()
        models = (await client.get("/reports/models")).json()
    assert {row["model_id"] for row in plain} == {row["model_id"] for row in models} == {"low", "high", "raises"}
    assert whole[:3] == plain
    assert [(row["model_id"], row["rank"]) for row in whole[3:]] == [(MAIN, None)]
    assert whole[3]["score_recent"] is not None


def check_emission(engine: Engine, later: datetime) -> None:
    """What is paid goes to real models only."""
    stage = CheckpointStage(engine, CONFIG, builders.settings_of(CHECKPOINT_GRACE_SECONDS="0", **ENVIRON))
    with transaction(engine) as session:
        fence = builders.lease(session, "checkpoint")
    while stage.run_once(later + timedelta(minutes=3), fence).again:
        pass
    made = rows(engine, "SELECT entries_jsonb, meta_jsonb FROM checkpoints WHERE entries_jsonb <> '[]'")
    ranked = [[entry["model_id"] for entry in row.meta_jsonb["ranking"]] for row in made]
    assert sum(map(len, ranked)) >= 2
    assert {model_id for ranking in ranked for model_id in ranking} <= {"low", "high", "raises"}
    for row, ranking in zip(made, ranked, strict=True):
        rewards = row.entries_jsonb[0]["cruncher_rewards"]
        assert {reward["cruncher_index"] for reward in rewards} <= set(range(len(ranking)))
        assert sum(reward["reward_pct"] for reward in rewards) in (0, FRAC_64_MULTIPLIER)
