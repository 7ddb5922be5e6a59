"""The same records through the live stages with a test clock and through a backtest: the same to the last digit."""

from __future__ import annotations

import importlib
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import builders
import pytest
from backtest_cases import Momentum, every, walk, write_files
from builders import rows
from live_predict import predicting
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.backtest import BacktestResult, BacktestRunner, Round, write_rounds
from coordinator_node.backtest.standing import Standings
from coordinator_node.cli.init import Layout, create_workspace
from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.crunch_config import CrunchConfig, ScheduledPrediction
from coordinator_node.db.engine import transaction
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.feed_data.store import store_records
from coordinator_node.services.predict import grid
from coordinator_node.services.score import score_stage
from coordinator_node.services.snapshot import SnapshotStage
from coordinator_node.services.tournament.rounds import queue_round
from coordinator_node.services.tournament.truths import give_truth

START = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
# The models connect, and the schedules are activated, a little before the first slot.
CONNECTED = START - timedelta(seconds=1)
SECONDS = 85
CYCLE = 20
ENVIRON = {
    "FEED_SOURCE": "simulated",
    "FEED_SUBJECTS": "BTC,ETH",
    "FEED_KIND": "tick",
    "FEED_GRANULARITY": "1s",
    "FEED_CANDLES_WINDOW": "25",
    "SCORE_INTERVAL_SECONDS": str(CYCLE),
}
PACKS = {
    "tournament": ("linear", "guess", "one_feature"),
    "prediction": ("fading", "guess", "momentum"),
    "trading": ("always_bought", "patient_momentum", "restless"),
    "density": ("recent_volatility", "too_narrow", "too_wide"),
}


class Moody:
    """Wraps a model: every so often it raises, or answers what nobody takes."""

    def __init__(self, model: Any) -> None:
        self.model, self.calls = model, 0

    def tick(self, data: dict[str, Any]) -> None:
        self.model.tick(data)

    def predict(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls % 7 == 3:
            raise ValueError(f"no idea at call {self.calls}")
        return "a lot" if self.calls % 7 == 5 else self.model.predict(*arguments)


@pytest.fixture(params=sorted(PACKS))
def pack(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pack's challenge as an importable package of its own name."""
    name: str = request.param
    target = create_workspace(f"parity-{name}", name, tmp_path, Layout())
    monkeypatch.syspath_prepend(target / "challenge")
    return name


def models_of(pack: str) -> dict[str, Any]:
    """New models: the pack's examples, and one that fails now and then."""
    found: dict[str, Any] = {}
    for name in PACKS[pack]:
        module = importlib.import_module(f"parity_{pack}.examples.{name}")
        if hasattr(module, "random"):
            module.random = random.Random(7)
        base = importlib.import_module(f"parity_{pack}.tracker").TrackerBase
        found[name] = next(
            value()
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, base) and value is not base
        )
    return {**found, "moody": Moody(found.pop(PACKS[pack][0]))}


def all_records() -> list[FeedRecord]:
    begin, end = START - timedelta(seconds=60), START + timedelta(seconds=SECONDS + 20)
    btc, eth = every(2.5, begin, end), every(3.1, begin + timedelta(seconds=0.7), end)
    return [*walk("BTC", btc), *walk("ETH", eth)]


def all_rounds() -> list[Round]:
    """Rounds whose truths are told in another order; one row waits for its truth, and so does a whole round."""
    rng = random.Random(11)
    rounds = []
    for number in range(9):
        rows = [{f"x{n}": rng.gauss(0, 1) for n in (4, 2, 3, 1)} for _ in range(5)]
        truths: list[Any] = [{"target": 0.4 * row["x1"] + rng.gauss(0, 0.5)} for row in rows]
        truths[2] = None if number == 4 else truths[2]
        asked_at = START + timedelta(seconds=7 * number)
        told_at = asked_at + timedelta(seconds=rng.uniform(1, 30))
        rounds.append(Round(f"round-{number}", asked_at, rows, truths if number != 6 else None, told_at))
    return rounds


async def play_records(engine: Engine, config: CrunchConfig, models: dict[str, Any], records: list[FeedRecord]) -> None:
    """A step at each moment of the feed and of the slots."""
    with transaction(engine) as session:
        store_records(session, records, START)
    async with predicting(engine, config, models, ENVIRON, CONNECTED) as step:
        moments = {START + timedelta(seconds=n) for n in range(0, SECONDS, 5)}
        known = {r.ts_event for r in records if CONNECTED < r.ts_event <= max(moments)}
        for moment in sorted(moments | known):
            await step(moment)


async def play_rounds(engine: Engine, config: CrunchConfig, models: dict[str, Any], rounds: list[Round]) -> None:
    """A step when each round is asked; afterwards the truths."""
    async with predicting(engine, config, models, ENVIRON, CONNECTED) as step:
        for one in rounds:
            with transaction(engine) as session:
                queue_round(session, config, one.round_id, one.features, one.asked_at)
            await step(one.asked_at)
    for one in rounds:
        if one.ground_truth is not None:
            with transaction(engine) as session:
                give_truth(session, config, one.round_id, one.ground_truth, one.due_at)


def score_live(engine: Engine, config: CrunchConfig, settings: Settings) -> None:
    with Session(engine) as session:
        fence = builders.lease(session)
        session.commit()
    scores, snapshots = score_stage(engine, config, settings), SnapshotStage(engine, config, settings)
    for seconds in range(0, SECONDS + 3 * CYCLE, CYCLE):
        moment = START + timedelta(seconds=seconds)
        while scores.run_once(moment).again:
            pass
        while snapshots.run_once(moment, fence).again:
            pass


PREDICTIONS = """
    SELECT prediction.model_id, prediction.scope_key, scope_jsonb AS scope, performed_at, resolvable_at, status,
           prediction.failed_reason, inference_output_jsonb AS output, scores.result_jsonb AS result
    FROM predictions AS prediction LEFT JOIN scores ON scores.prediction_id = prediction.id
    ORDER BY prediction.model_id, performed_at, prediction.scope_key, scope_jsonb -> 'feature_index'
"""
NEWEST = "SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC LIMIT 1"


def as_rows(result: BacktestResult) -> list[dict[str, Any]]:
    made = [
        {
            "model_id": one.record.model_id,
            "scope_key": one.record.scope_key,
            "scope": one.record.scope,
            "performed_at": one.record.performed_at,
            "resolvable_at": one.record.resolvable_at,
            "status": one.record.status.value,
            "failed_reason": one.failed_reason,
            "output": one.record.inference_output,
            "result": None if one.verdict is None else one.result,
        }
        for one in result.judged
    ]
    in_order = ("performed_at", "scope_key")
    return sorted(made, key=lambda row: (*(row[name] for name in in_order), row["scope"].get("feature_index")))


async def test_live_and_backtest_are_the_same_to_the_last_digit(
    pack: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    # The test's clock stands still while models answer; on a busy machine that may take longer than a deadline.
    monkeypatch.setattr(grid, "DEADLINE_SHARE", 10.0)
    monkeypatch.setattr(grid, "DEADLINE_MOST_SHARE", 10.0)
    config = importlib.import_module(f"parity_{pack}.config").CrunchConfig()
    if pack == "tournament":
        rounds = all_rounds()
        await play_rounds(engine, config, models_of(pack), rounds)
        data = write_rounds(tmp_path / "rounds.parquet", rounds)
    else:
        records = all_records()
        await play_records(engine, config, models_of(pack), records)
        data = write_files(tmp_path / "data", records)
    score_live(engine, config, load_settings(ENVIRON))

    end = START + timedelta(seconds=SECONDS)
    results = {
        name: BacktestRunner(model, config, data=data).run(CONNECTED, end, model_id=name)
        for name, model in models_of(pack).items()
    }
    live = rows(engine, PREDICTIONS)
    assert len(live) > 60
    assert live == [row for name in sorted(results) for row in as_rows(results[name])]
    assert {row["status"] for row in live} - {"PENDING"} == {"SCORED", "FAILED"}
    assert ("PENDING" in {row["status"] for row in live}) == (pack == "tournament")

    together = Standings(config, load_settings(ENVIRON)).of({name: one.judged for name, one in results.items()})
    entries = {entry["model_id"]: entry["score"]["metrics"] for entry in rows(engine, NEWEST)[0]["entries_jsonb"]}
    for name, result in results.items():
        for metric in [*config.aggregation.windows, *config.metrics]:
            expected = math.nan if entries[name][metric] is None else entries[name][metric]
            assert same(together[name][metric], expected), (name, metric)
            # Alone, a model has nobody to be like.
            assert same(result.metrics[metric], math.nan if metric == "model_correlation" else expected), (name, metric)
        assert not math.isnan(result.metrics["score_recent"])


def last_close_or_return(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """By a prediction's own input where it is scored at once, else by what came after it."""
    if "subjects" in ground_truth:
        return {"value": ground_truth["subjects"]["BTC"]["candles_1m"][-1]["close"] * prediction["value"]}
    return {"value": ground_truth["profit"] * prediction["value"], "actual_return": ground_truth["profit"]}


async def test_a_horizon_of_0_beside_a_longer_one_is_the_same_too(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(grid, "DEADLINE_SHARE", 10.0)
    monkeypatch.setattr(grid, "DEADLINE_MOST_SHARE", 10.0)
    schedules = [
        ScheduledPrediction(
            scope_key=f"{subject}-{horizon}",
            scope={"subject": subject},
            prediction_interval_seconds=10,
            resolve_horizon_seconds=horizon,
        )
        for subject, horizon in (("BTC", 0), ("ETH", 20))
    ]
    config = CrunchConfig(scoring_function=last_close_or_return, scheduled_predictions=schedules)
    await play_records(engine, config, {"model": Momentum()}, all_records())
    score_live(engine, config, load_settings(ENVIRON))

    data = write_files(tmp_path, all_records())
    result = BacktestRunner(Momentum(), config, data=data).run(
        CONNECTED, START + timedelta(seconds=SECONDS), model_id="model"
    )
    live = rows(engine, PREDICTIONS)
    assert live == as_rows(result)
    scored = {row["scope_key"] for row in live if row["status"] == "SCORED" and row["result"]["value"] != 0}
    assert scored == {"BTC-0", "ETH-20"}
    entry = rows(engine, NEWEST)[0]["entries_jsonb"][0]["score"]["metrics"]
    for metric in config.aggregation.windows:
        assert same(result.metrics[metric], entry[metric])


def same(value: float, expected: float) -> bool:
    return value == expected or (math.isnan(value) and math.isnan(expected))
