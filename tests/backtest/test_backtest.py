"""Backtests of small markets: what models see and when, what fails, what the result says."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from backtest_cases import Momentum, config_of, every, walk, write_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator_node.backtest import BacktestRunner
from coordinator_node.backtest.equity import equity_of
from coordinator_node.backtest.numbers import Numbers
from coordinator_node.backtest.result import MissingPandasError
from coordinator_node.backtest.standing import BESIDE
from coordinator_node.crunch_config import CrunchConfig, InferenceInput
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.feed_record import FeedRecord

START = datetime(2025, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FEED_VARIABLES = ("FEED_SOURCE", "FEED_PROVIDER", "FEED_SUBJECTS", "FEED_ASSETS", "FEED_KIND", "FEED_GRANULARITY")


@pytest.fixture(autouse=True)
def no_feed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FEED_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def candles(*subjects: str, hours: float = 6.0, before: float = 3.0) -> list[FeedRecord]:
    times = every(60, START - before * HOUR, START + hours * HOUR)
    return [record for subject in subjects or ("BTC",) for record in walk(subject, times, "candle", "1m")]


class Witness:
    """Keeps everything that it is given, with when it was asked."""

    seen: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self) -> None:
        Witness.seen = []

    def tick(self, data: dict[str, Any]) -> None:
        Witness.seen.append(("tick", data))

    def predict(self, subject: str, resolve_horizon_seconds: int, step_seconds: int) -> dict[str, float]:
        Witness.seen.append(("predict", subject))
        return {"value": 1.0}


@given(
    gaps=st.lists(st.integers(min_value=1, max_value=7), min_size=3, max_size=25),
    window=st.integers(min_value=1, max_value=5),
    interval=st.sampled_from([60, 120, 300]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_at_a_slot_the_model_has_exactly_the_newest_records_that_had_closed(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[int], window: int, interval: int
) -> None:
    minutes = [sum(gaps[: n + 1]) - gaps[0] for n in range(len(gaps))]
    opened = [START + timedelta(minutes=minute) for minute in minutes]
    root = write_files(tmp_path_factory.mktemp("data"), walk("BTC", opened, "candle", "1m"))
    end = opened[-1] + timedelta(minutes=3)
    result = BacktestRunner(Witness, config_of(interval=interval), data=root, window=window).run(START, end)
    slots = [one.record.performed_at for one in sorted(result.judged, key=lambda one: one.record.performed_at)]
    newest: dict[str, Any] = {}
    asked = iter(slots)
    for what, said in Witness.seen:
        if what == "tick":
            newest = said
            continue
        slot = next(asked)
        closed = [moment for moment in opened if moment + timedelta(minutes=1) <= slot]
        assert [candle["ts"] for candle in newest["candles_1m"]] == [int(m.timestamp()) for m in closed[-window:]]
        assert newest["asof_ts"] == int(closed[-1].timestamp()) + 60 <= slot.timestamp()
    assert next(asked, None) is None
    assert len([1 for what, _ in Witness.seen if what == "tick"]) <= len(opened)


def test_what_comes_later_changes_nothing_that_was_said_before(tmp_path: Path) -> None:
    records = candles()
    cut = START + 3 * HOUR
    other = [r if r.ts_event < cut else FeedRecord(**{**vars(r), "values": {"close": 1e6}}) for r in records]
    said = []
    for name, own in (("as-it-was", records), ("otherwise", other)):
        result = BacktestRunner(Momentum(), config_of(), data=write_files(tmp_path / name, own)).run(START, cut)
        said.append([(one.record.performed_at, one.record.inference_output) for one in result.judged])
    assert said[0] == said[1]
    assert len(said[0]) == 180


class Vandal(Momentum):
    """Destroys what it is given."""

    def tick(self, data: dict[str, Any]) -> None:
        super().tick(data)
        for candle in data["candles_1m"]:
            candle.clear()
        data.clear()


def test_a_model_that_changes_its_input_harms_nobody(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles())
    one, other = (BacktestRunner(m, config_of(), data=root).run(START, START + HOUR) for m in (Momentum(), Vandal()))
    assert [j.record.inference_output for j in one.judged] == [j.record.inference_output for j in other.judged]


def test_several_subjects_have_their_own_windows_and_truths(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles("BTC", "ETH"))
    both = BacktestRunner(Momentum, config_of("BTC", "ETH"), data=root).run(START, START + 2 * HOUR)
    alone = BacktestRunner(Momentum, config_of("BTC", "ETH"), data=root, subjects=["ETH"]).run(START, START + 2 * HOUR)
    frame = both.predictions_df
    assert frame.groupby("subject").size().to_dict() == {"BTC": 120, "ETH": 120}
    eth = frame[frame.subject == "ETH"]
    assert list(eth.signal) == list(alone.predictions_df.signal)
    assert list(eth.actual_return) == list(alone.predictions_df.actual_return)
    assert set(alone.predictions_df.subject) == {"ETH"}


class Failing(Momentum):
    def tick(self, data: dict[str, Any]) -> None:
        super().tick(data)
        if data["asof_ts"] % 1800 == 0:
            raise RuntimeError("a bad tick")

    def predict(self, *arguments: Any) -> Any:
        answer = super().predict(*arguments)
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls % 10 == 0:
            raise KeyError("lost")
        return {"value": math.nan} if self.calls % 10 == 5 else answer


def test_what_raises_or_answers_nonsense_is_failed_and_said(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles())
    result = BacktestRunner(Failing(), config_of(), data=root).run(START, START + 2 * HOUR)
    assert result.counts == {"SCORED": 96, "FAILED": 24}
    reasons = {one.failed_reason for one in result.judged}
    assert reasons == {None, "FAILED: KeyError: 'lost'", "answer.value is nan in {'value': nan}"}
    assert any("tick raised 4 times, first: RuntimeError: a bad tick" in warning for warning in result.warnings)


def test_outcomes_beyond_the_records_stay_pending_and_slots_before_them_are_missed(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles(before=0, hours=1))
    result = BacktestRunner(Momentum, config_of(horizon=600), data=root).run(START, START + HOUR + HOUR / 2)
    assert result.missed == {"no feed record is known": 1}
    assert result.counts == {"PENDING": 39, "SCORED": 50}
    assert any("39 predictions wait" in warning for warning in result.warnings)


def test_an_undefined_metric_is_a_float_that_formats(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles())
    config = config_of(metrics=["ic", "model_correlation", "contribution", "of_nobody"])
    result = BacktestRunner(Momentum, config, data=root).run(START, START + timedelta(minutes=2))
    lines = [f"{name}: {value:+.6f}" for name, value in result.metrics.items()]
    assert {*BESIDE, "score_recent", "model_correlation", "net_mean_return"} <= result.metrics.keys()
    assert "model_correlation: +nan" in lines
    assert all(type(value) is float for value in [*result.metrics.values(), *result.run_metrics.values()])


def test_the_metrics_hand_computed(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles())
    result = BacktestRunner(Momentum, config_of(), data=root).run(START, START + 4 * HOUR, costs_bps=3.0)
    frame = result.predictions_df
    assert result.metrics["score_recent"] == pytest.approx(frame.score.mean(), rel=1e-12)
    assert result.metrics["ic"] == pytest.approx(frame.signal.corr(frame.actual_return, method="spearman"), rel=1e-9)
    sides = frame.signal.map(lambda value: (value > 0) - (value < 0))
    costs = sides.diff().abs().fillna(abs(sides[0])) * 3e-4
    assert list(frame.earned) == pytest.approx(list(sides * frame.actual_return - costs))
    assert list(frame.equity) == pytest.approx(list(frame.earned.cumsum()))
    assert result.metrics["net_mean_return"] == pytest.approx(frame.earned.mean())
    assert result.metrics["hit_rate"] == result.run_metrics["hit_rate"]


def test_an_aggregator_that_raises_costs_what_it_was_given_only(tmp_path: Path) -> None:
    def only_gains(results: list[dict[str, Any]]) -> dict[str, Any]:
        if results[0]["value"] < 0:
            raise ArithmeticError("no losses here")
        return {"value": results[0]["value"]}

    root = write_files(tmp_path, candles())
    result = BacktestRunner(Momentum, config_of(aggregate_snapshot=only_gains), data=root).run(START, START + 2 * HOUR)
    scores = result.predictions_df.score
    assert 0 < (scores < 0).sum() < len(scores)
    assert result.metrics["score_recent"] == pytest.approx(scores[scores >= 0].mean(), rel=1e-12)


def test_the_result_can_be_kept_and_shown(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles())
    result = BacktestRunner(Momentum, config_of(), data=root).run("2025-06-01", "2025-06-01T02:00:00Z")
    kept = pq.read_table(result.to_parquet(tmp_path / "kept.parquet"))
    assert kept.num_rows == 120
    assert kept.column("signal").to_pylist() == list(result.predictions_df.signal)
    shown = result._repr_html_()
    assert shown.count("<polyline") == 2
    assert "score_recent" in shown
    assert "120 SCORED" in result.summary()


def test_all_but_frames_works_without_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_files(tmp_path, candles())
    monkeypatch.setitem(sys.modules, "pandas", None)
    result = BacktestRunner(Momentum, config_of(), data=root).run(START, START + HOUR)
    assert pq.read_table(result.to_parquet(tmp_path / "kept.parquet")).num_rows == 60
    assert "60 SCORED" in result.summary()
    assert "<polyline" in result._repr_html_()
    with pytest.raises(MissingPandasError, match="pip install"):
        _ = result.predictions_df


def test_each_scope_pays_for_its_own_changes_of_position() -> None:
    """Against a loop over the entries, one scope after another as they come."""
    rng = np.random.default_rng(3)
    signals, returns = rng.choice([-1.0, 0.0, 2.0, math.nan], 300), rng.normal(size=300)
    scopes, scored = rng.integers(0, 4, 300), rng.random(300) > 0.1
    equity = equity_of(Numbers(signals, returns, returns, scored, scopes), costs_bps=7.0)
    held: dict[int, float] = {}
    expected = []
    for signal, happened, scope, counts in zip(signals, returns, scopes, scored, strict=True):
        if counts and not math.isnan(signal):
            position = float(np.sign(signal))
            expected.append(position * happened - 7.0 * 1e-4 * abs(position - held.get(scope, 0.0)))
            held[scope] = position
    assert equity.earned.tolist() == expected
    assert equity.curve.tolist() == np.cumsum(expected).tolist()
    assert equity.drawdown.min() < 0.0 == equity.drawdown.max()


def shrink(raw: dict[str, Any]) -> dict[str, Any]:
    """An operator's builder that keeps less, and cannot do without a second record."""
    closes = [candle.pop("close") for candle in raw.pop("candles_1m")]
    return {"symbol": raw["symbol"], "change": closes[-1] - closes[-2]}


class Small(InferenceInput):
    change: float


def test_an_operators_builder_and_input_type_shape_what_models_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_INPUT_BUILDER", f"{__name__}:shrink")
    root = write_files(tmp_path, candles(before=0))
    BacktestRunner(Witness, config_of(input_type=Small), data=root).run(START, START + HOUR / 2)
    ticks = [said for what, said in Witness.seen if what == "tick"]
    assert all(tick.keys() == {"symbol", "change"} for tick in ticks)
    # The first candle, whose window the builder refuses, is skipped; a slot then is missed.
    assert len(ticks) == 28


def test_horizon_0_is_judged_by_its_own_input(tmp_path: Path) -> None:
    def last_close(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
        return {"value": ground_truth["candles_1m"][-1]["close"]}

    root = write_files(tmp_path, candles())
    config = config_of(horizon=0, scoring_function=last_close)
    result = BacktestRunner(Vandal, config, data=root).run(START, START + HOUR)
    assert result.counts == {"SCORED": 60}
    assert len({one.result["value"] for one in result.judged}) == 60


def test_a_run_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles())
    model = Momentum()
    runner = BacktestRunner(model, config_of(), data=root)
    one, other = runner.run(START, START + HOUR), runner.run(START, START + HOUR)
    assert model.closes == {}
    assert one.metrics == pytest.approx(other.metrics, nan_ok=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_folds_models_and_parameters(tmp_path: Path, processes: int) -> None:
    root = write_files(tmp_path, candles())
    runner = BacktestRunner(Momentum, config_of(), data=root)
    end = START + 3 * HOUR
    if processes == 1:
        folds = runner.walk_forward(START, end, folds=3, processes=1)
        assert [result.counts["SCORED"] for result in folds.results.values()] == [60, 60, 60]
        models = runner.compare({"short": Momentum(2), "long": Momentum(30)}, START, end, processes=1)
        assert -1 < models["short"].metrics["model_correlation"] < 1
    swept = runner.sweep({"records": [2, 30]}, START, end, processes=processes)
    assert list(swept.results) == ["records=2", "records=30"]
    assert (
        swept["records=30"].metrics["ic"]
        == BacktestRunner(Momentum(30), config_of(), data=root).run(START, end).metrics["ic"]
    )
    assert "records=2" in swept.summary()
    assert len(swept.metrics_df) == 2


SCRIPT = """
import sys
from backtest_cases import Momentum, config_of
from coordinator_node.backtest import BacktestRunner

print("begun")
runner = BacktestRunner(Momentum, config_of(), data=sys.argv[1])
print(len(runner.sweep({"records": [2, 3]}, "2025-06-01", "2025-06-01T00:10", processes=2)))
"""


def test_a_script_that_does_not_ask_whether_it_is_main_is_run_once(tmp_path: Path) -> None:
    root, script = write_files(tmp_path / "data", candles(hours=1)), tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(script), str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["begun", "2"], done.stderr


class Unmakeable(Momentum):
    def __init__(self, records: int = 2) -> None:
        raise LookupError("no weights")


def test_runs_that_could_not_be_told_apart_or_made_are_said(tmp_path: Path) -> None:
    runner = BacktestRunner(Momentum, config_of(), data=write_files(tmp_path, candles(hours=1)))
    half = START + HOUR / 2
    folds = runner.walk_forward(START, START + timedelta(minutes=3), folds=6, processes=1)
    assert list(folds.results)[:2] == ["2025-06-01 00:00:00.000000", "2025-06-01 00:00:30.000000"]
    assert len(runner.walk_forward(START, half, folds=2, processes=1)) == 2
    with pytest.raises(ConfigurationError, match="several of these parameters are called 'records=2'"):
        runner.sweep({"records": [2, "2"]}, START, half, processes=1)
    with pytest.raises(ConfigurationError, match=r"the model cannot be made: TypeError: .*'speed'") as refused:
        runner.sweep({"speed": [1]}, START, half, processes=1)
    assert refused.value.__notes__ == ["this was 'speed=1' of several backtests"]
    with pytest.raises(ConfigurationError, match="the model cannot be made: LookupError: no weights"):
        BacktestRunner(Unmakeable, config_of(), data=tmp_path).run(START, half)
    assert BacktestRunner(Momentum, config_of(), data=tmp_path, subjects="BTC").run(START, half).counts == {
        "SCORED": 30
    }


def test_mistakes_are_said(tmp_path: Path) -> None:
    root = write_files(tmp_path, candles())
    runner = BacktestRunner(Momentum, config_of(), data=root)
    with pytest.raises(ConfigurationError, match=r"no record between .*simulated/BTC/candle/1m; fetch it"):
        runner.run(START + 100 * HOUR, START + 101 * HOUR)
    with pytest.raises(ConfigurationError, match="is not before its end"):
        runner.run(START, START)
    with pytest.raises(ConfigurationError, match=r"no records of FEED_KIND=tick in .*; there is simulated/candle/1m"):
        BacktestRunner(Momentum, config_of(), data=root, kind="tick").run(START, START + HOUR)
    with pytest.raises(ConfigurationError, match="object has no method 'tick'"):
        BacktestRunner(object, config_of(), data=root).run(START, START + HOUR)
    with pytest.raises(ConfigurationError, match="a tournament's backtest needs its rounds"):
        BacktestRunner(Momentum, CrunchConfig(mode="tournament"))
    with pytest.raises(ConfigurationError, match="data holds rounds, but the config is not for tournaments"):
        BacktestRunner(Momentum, config_of(), data=[])
    with pytest.raises(ConfigurationError, match="shorter than the feed's spacing"):
        BacktestRunner(Momentum, config_of(horizon=30), data=root).run(START, START + HOUR)
    next((root / "simulated/BTC/candle/1m").glob("*.parquet")).write_bytes(b"torn")
    with pytest.raises(ConfigurationError, match="is no Parquet file of records"):
        runner.run(START, START + HOUR)
