"""Ground truth: the window, the watermark, and what a resolver may return."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import builders
import pytest
from builders import at
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus
from coordinator_node.services.feed_scope import FeedScope, feed_spacing_seconds
from coordinator_node.services.feed_windows import Window, known_until, read_windows
from coordinator_node.services.ground_truth import GroundTruths, Outcome, resolver_of


def predicted(
    start: datetime, end: datetime, scope: dict[str, Any] | None = None, input_id: str = "input"
) -> PredictionRecord:
    return PredictionRecord(
        id=builders.numbered("p"),
        input_id=input_id,
        model_id="m",
        prediction_config_id=None,
        scope_key="s",
        scope={"subject": "BTC"} if scope is None else scope,
        status=PredictionStatus.PENDING,
        exec_time_ms=0.0,
        performed_at=start,
        resolvable_at=end,
    )


def seen(engine: Engine, start: datetime, end: datetime, **environ: str) -> list[float]:
    """When the records of a window happened, in seconds after START."""
    feed = FeedScope.from_settings(builders.settings_of(**environ))
    with Session(engine) as session:
        [(_, found)] = read_windows(session, feed, [Window("BTC", start, end)])
    return [(record.ts_event - builders.START).total_seconds() for record in found]


def test_a_window_of_ticks_begins_at_the_last_known_at_performed_at_and_ends_at_resolvable_at(engine: Engine) -> None:
    with Session(engine) as session:
        builders.ticks(session, {0: 1, 9: 1, 10: 1, 12: 1, 20: 1, 20.000001: 1})
        builders.ticks(session, {11: 5}, subject="ETH")
        session.commit()
    assert seen(engine, at(10), at(20)) == [10, 12, 20]
    assert seen(engine, at(11), at(20)) == [10, 12, 20]
    assert seen(engine, at(9.999999), at(12)) == [9, 10, 12]
    assert seen(engine, at(-5), at(0)) == [0]
    assert seen(engine, at(-5), at(-1)) == []


def test_a_candle_is_known_one_spacing_after_its_open_time(engine: Engine) -> None:
    with Session(engine) as session:
        scope = {"kind": "candle", "granularity": "1m"}
        builders.records(session, {m * 60: {"close": m} for m in range(5)}, **scope)
        session.commit()
    environ = {"FEED_KIND": "candle", "FEED_GRANULARITY": "1m"}
    # At 120 s the candle that opened at 60 s is known, and the running one is not.
    assert seen(engine, at(120), at(180), **environ) == [60, 120]
    assert seen(engine, at(121), at(239), **environ) == [60, 120]
    assert seen(engine, at(59), at(60), **environ) == [0]


def test_windows_are_the_naive_ones_of_any_records(engine: Engine) -> None:
    @settings(max_examples=40, deadline=None)
    @given(
        events=st.sets(st.integers(0, 30), min_size=1),
        windows=st.lists(st.tuples(st.integers(-2, 32), st.integers(0, 20)), min_size=1, max_size=8),
    )
    def check(events: set[int], windows: list[tuple[int, int]]) -> None:
        feed = FeedScope.from_settings(builders.settings_of(FEED_KIND="candle", FEED_GRANULARITY="1s"))
        wanted = [Window("BTC", at(start), at(start + length)) for start, length in windows]
        with Session(engine) as session:
            builders.records(session, {second: {"close": second} for second in events}, kind="candle")
            found = dict(read_windows(session, feed, wanted))
            session.rollback()
        assert set(found) == set(range(len(windows)))
        for place, (start, length) in enumerate(windows):
            read = [record.values["close"] for record in found[place]]
            known = {second: second + 1 for second in sorted(events)}
            before = [second for second, moment in known.items() if moment <= start]
            assert read == before[-1:] + [s for s, moment in known.items() if start < moment <= start + length]

    check()


def test_many_windows_are_read_in_parts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator_node.services.feed_windows.RECORDS_AT_ONCE", 10)
    feed = FeedScope.from_settings(builders.settings_of())
    starts = [30, 0, 2, 12, 10, 20, 22, 32, 40]
    with Session(engine) as session:
        builders.ticks(session, {second: second for second in range(50)})
        read = read_windows(session, feed, [Window("BTC", at(start), at(start + 4)) for start in starts])
        found = {place: [record.values["price"] for record in records] for place, records in read}
    assert [found[place] for place in range(len(starts))] == [[start + n for n in range(5)] for start in starts]


def test_the_watermark_is_told_in_known_time(engine: Engine) -> None:
    with Session(engine) as session:
        builders.watermark(session, at(100), kind="candle", granularity="1m")
        feed = FeedScope.from_settings(builders.settings_of(FEED_KIND="candle", FEED_GRANULARITY="1m"))
        assert known_until(session, feed, ["BTC", "ETH"]) == {"BTC": at(160)}


@pytest.mark.parametrize(
    ("environ", "spacing"),
    [
        ({"FEED_GRANULARITY": "1m"}, 60.0),
        ({"FEED_SOURCE": "replay", "FEED_GRANULARITY": "1m", "FEED_OPT_SPEED": "60"}, 1.0),
        ({"FEED_SOURCE": "Replay", "FEED_GRANULARITY": "5m", "FEED_OPT_speed": "0.5"}, 600.0),
        ({"FEED_SOURCE": "replay", "FEED_GRANULARITY": "1m", "FEED_OPT_speed": ""}, 60.0),
        ({"FEED_SOURCE": "simulated", "FEED_GRANULARITY": "1m", "FEED_OPT_speed": "60"}, 60.0),
    ],
)
def test_the_spacing_of_a_replay_is_divided_by_its_speed(environ: dict[str, str], spacing: float) -> None:
    assert feed_spacing_seconds(builders.settings_of(**environ)) == spacing


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "nan", "inf"])
def test_a_speed_that_is_no_positive_number_is_refused(speed: str) -> None:
    with pytest.raises(ConfigurationError, match="FEED_OPT_speed"):
        FeedScope.from_settings(builders.settings_of(FEED_SOURCE="replay", FEED_OPT_speed=speed))


def outcomes(engine: Engine, config: CrunchConfig, *predictions: PredictionRecord, **environ: str) -> list[Outcome]:
    truths = GroundTruths(config, builders.settings_of(**environ))
    with Session(engine) as session:
        return truths.outcomes(session, predictions)


def test_nothing_is_resolved_before_the_watermark_has_passed_the_horizon(engine: Engine) -> None:
    due = predicted(at(0), at(10))
    with Session(engine) as session:
        builders.records(session, {0: {"price": 100.0}, 5: {"price": 101.0}, 10: {"price": 110.0}})
        session.commit()
        assert outcomes(engine, CrunchConfig(), due) == [Outcome()]
        builders.watermark(session, at(9.999999))
        session.commit()
        assert outcomes(engine, CrunchConfig(), due) == [Outcome()]
        builders.watermark(session, at(10))
        session.commit()
    [outcome] = outcomes(engine, CrunchConfig(), due)
    assert outcome.truth == {"entry_price": 100.0, "resolved_price": 110.0, "profit": 0.1, "direction_up": True}


def test_one_record_in_the_window_is_no_outcome(engine: Engine) -> None:
    with Session(engine) as session:
        builders.ticks(session, {0: 100.0, 11: 120.0})
        session.commit()
    assert outcomes(engine, CrunchConfig(), predicted(at(0), at(10))) == [Outcome()]


def test_a_scope_without_a_subject_is_judged_by_the_first_of_the_feed(engine: Engine) -> None:
    with Session(engine) as session:
        builders.ticks(session, {0: 100.0, 10: 50.0})
        builders.ticks(session, {0: 100.0, 10: 300.0}, subject="ETH")
        session.commit()
    btc, eth = outcomes(
        engine, CrunchConfig(), predicted(at(0), at(10), {}), predicted(at(0), at(10), {"subject": "ETH"})
    )
    assert btc.truth is not None
    assert eth.truth is not None
    assert (btc.truth["profit"], eth.truth["profit"]) == (-0.5, 2.0)


def test_with_horizon_0_the_truth_is_the_input_itself(engine: Engine) -> None:
    raw = {"symbol": "BTC", "candles_1m": [{"ts": 1, "close": 2.5}]}
    with Session(engine) as session:
        input_id = builders.market_input(session, raw_data_jsonb=raw).id
        session.commit()

    def never(feed_records: list[Any], prediction: Any = None) -> None:
        raise AssertionError("no feed is read for horizon 0")

    config = CrunchConfig(resolve_ground_truth=never)
    assert outcomes(engine, config, predicted(at(0), at(0), input_id=input_id)) == [Outcome(raw)]


def returning(value: Any) -> CrunchConfig:
    return CrunchConfig(resolve_ground_truth=lambda feed_records, prediction=None: value)


class Strict(BaseModel):
    level: float


def test_what_a_resolver_does_wrong_costs_its_group_and_says_so(engine: Engine) -> None:
    with Session(engine) as session:
        builders.ticks(session, {0: 100.0, 10: 50.0})
        session.commit()
    for config, problem in WRONG:
        [outcome] = outcomes(engine, config, predicted(at(0), at(10)))
        assert outcome.truth is None
        assert problem in (outcome.problem or "")


WRONG = [
    (returning({"profit": float("nan")}), "UnstorableError: ground truth.profit is nan"),
    (returning({"deep": [{"x": float("inf")}]}), "UnstorableError: ground truth.deep[0].x is inf"),
    (returning({"text": "a\x00b"}), "database cannot store"),
    (returning(1.5), "TypeError: resolve_ground_truth returned a float"),
    (returning({"when": object()}), "UnstorableError"),
    (CrunchConfig(ground_truth_type=Strict, resolve_ground_truth=lambda records: {"level": "high"}), "ValidationError"),
    (CrunchConfig(resolve_ground_truth=lambda records: 1 / 0), "ZeroDivisionError: division by zero"),
    (CrunchConfig(resolve_ground_truth=lambda records: sys.exit("no")), "SystemExit: no"),
]


def test_resolvers_of_all_times_are_called_as_they_can_be() -> None:
    prediction = predicted(at(0), at(10))
    assert resolver_of(lambda feed_records: ("older", feed_records))([], prediction) == ("older", [])
    assert resolver_of(lambda records, prediction=None: prediction)([], prediction) is prediction
    assert resolver_of(lambda records, *, prediction: prediction)([], prediction) is prediction
    assert resolver_of(lambda *anything: anything)([], prediction) == ([], prediction)
