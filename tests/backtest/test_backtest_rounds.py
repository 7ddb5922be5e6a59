"""Backtests of a tournament's rounds, given as data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coordinator_node.backtest import BacktestRunner, Round, read_rounds, write_rounds
from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig
from coordinator_node.entities.errors import ConfigurationError

START = datetime(2026, 10, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def squared(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    return {"value": -((prediction["value"] - ground_truth["y"]) ** 2), "actual_return": ground_truth["y"]}


CONFIG = CrunchConfig(
    mode="tournament",
    scoring_function=squared,
    call_method=CallMethodConfig(args=[CallMethodArg(name="features", type="JSON")]),
)


class Copies:
    """Says a row's x, times a factor; it has no `tick`, which nobody calls."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def predict(self, features: dict[str, Any]) -> dict[str, float]:
        return {"value": self.factor * features.pop("x")}


def rounds(count: int = 4, rows: int = 5) -> list[Round]:
    made = []
    for number in range(count):
        features = [{"x": float(number - row)} for row in range(rows)]
        truths = [{"y": 2.0 * row["x"]} for row in features]
        asked_at = START + number * DAY
        made.append(Round(f"r{number}", asked_at, features, truths, asked_at + DAY / 2))
    return made


def test_every_row_is_asked_and_scored_by_its_truth() -> None:
    result = BacktestRunner(Copies, CONFIG, data=rounds()).run(START, START + 3 * DAY)
    assert result.counts == {"SCORED": 15}
    frame = result.predictions_df
    assert list(frame.actual_return) == list(2 * frame.signal)
    assert list(frame.score) == list(-(frame.signal**2))
    assert list(frame.feature_index) == [0, 1, 2, 3, 4] * 3
    assert result.metrics["ic"] == pytest.approx(1.0)
    assert "score_recent" in result.summary()


def test_rounds_without_a_truth_wait_and_count_nowhere() -> None:
    class RaisesOnZero(Copies):
        def predict(self, features: dict[str, Any]) -> dict[str, float]:
            return {"value": 1.0 / features["x"]}

    told, untold = rounds(2)
    waiting = Round("later", untold.asked_at, untold.features)
    result = BacktestRunner(RaisesOnZero, CONFIG, data=[told, waiting]).run(START, START + 3 * DAY)
    assert result.counts == {"PENDING": 4, "SCORED": 4, "FAILED": 2}
    alone = BacktestRunner(RaisesOnZero, CONFIG, data=[told]).run(START, START + 3 * DAY)
    assert result.metrics == pytest.approx(alone.metrics, nan_ok=True)
    assert any("4 predictions wait" in warning for warning in result.warnings)


def test_files_hold_what_the_endpoints_take(tmp_path: Path) -> None:
    made = [*rounds(2), Round("object", START, [{"x": 1.0, "more": [None, {"b": 1}]}], {"0": {"y": 1.0}}), rounds(4)[3]]
    write_rounds(tmp_path / "a.parquet", made[:2])
    write_rounds(tmp_path / "b.parquet", made[2:])
    assert read_rounds(tmp_path) == made
    swept = BacktestRunner(Copies, CONFIG, data=tmp_path).sweep(
        {"factor": [1.0, 2.0]}, START, START + 9 * DAY, processes=1
    )
    assert swept["factor=2.0"].metrics["score_recent"] == 0.0 > swept["factor=1.0"].metrics["score_recent"]
    compared = BacktestRunner(Copies, CONFIG, data=tmp_path).compare(
        {"one": Copies(1.0), "against": Copies(-1.0)}, START, START + 9 * DAY, processes=1
    )
    assert compared["one"].metrics["model_correlation"] == pytest.approx(-1.0)


def test_mistakes_are_said(tmp_path: Path) -> None:
    def run(*given: Round) -> None:
        BacktestRunner(Copies, CONFIG, data=given).run(START, START + DAY)

    with pytest.raises(ConfigurationError, match=r"round 'r0': ground_truth holds 4 entries; the round has 5"):
        run(Round("r0", START, rounds()[0].features, [{"y": 1.0}] * 4))
    with pytest.raises(ConfigurationError, match="round 'r0': features holds 0 rows"):
        run(Round("r0", START, []))
    with pytest.raises(ConfigurationError, match="several rounds of id 'r0'"):
        run(rounds()[0], rounds()[0])
    with pytest.raises(ConfigurationError, match="none of the 1 rounds was asked between"):
        run(rounds()[3])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigurationError, match=r"other\.parquet is no Parquet file of rounds"):
        BacktestRunner(Copies, CONFIG, data=tmp_path)
