"""The one ranking: windows against a naive transcription, the order, and what an operator may replace."""

from __future__ import annotations

import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

import builders
import pytest
from builders import at
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.crunch_config import Aggregation, AggregationWindow, CrunchConfig, ScoreResult
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.services.ranking import Ranking, RankingError, Standing, window_means

HOUR = 3600.0
NOW = at(100 * HOUR)


def aggregation(**fields: Any) -> Aggregation:
    windows = {"day": AggregationWindow(hours=24), "week": AggregationWindow(hours=72)}
    return Aggregation(**{"windows": windows, "ranking_key": "day", **fields})


def standing(model_id: str, value: float | None, first: float | None = 0.0, direction: str = "desc") -> Standing:
    return Standing(
        model_id=model_id,
        model_name=model_id,
        cruncher_name="",
        first_scored_at=None if first is None else at(first),
        windows={"day": value},
        summary={},
        key="day",
        direction=direction,
        value=value,
    )


def ranking_of(**environ: str) -> Ranking:
    return Ranking(CrunchConfig(aggregation=aggregation()), builders.settings_of(**environ))


RANKING = ranking_of()


def order_of(standings: list[Standing]) -> list[tuple[str, int | None]]:
    return [(found.model_id, found.rank) for found in standings]


values = st.one_of(st.none(), st.floats(-1e12, 1e12), st.integers(-5, 5), st.sampled_from([0.1, 0.2, 1e300]))


def test_windows_are_the_weighted_means_of_their_snapshots(engine: Engine) -> None:
    @settings(max_examples=40)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from("ab"),
                values,
                st.integers(0, 7),
                # The hours before NOW that matter are those at a window's edge.
                st.sampled_from([-0.001, 0, 0.001, 1, 23.999, 24, 24.001, 48, 71.999, 72, 72.001, 500]),
            ),
            max_size=12,
        )
    )
    def check(snapshots: list[tuple[str, float | None, int, float]]) -> None:
        with Session(engine) as session:
            for model_id in "ab":
                builders.model(session, model_id)
            for model_id, value, count, age in snapshots:
                builders.snapshot(session, model_id, value, count, period_end=at(100 * HOUR - age * HOUR))
            found = window_means(session, aggregation(), NOW)
            session.rollback()
        expected = {}
        for model_id in "ab":
            for name, hours in (("day", 24), ("week", 72)):
                inside = [
                    (Fraction(str(value)), count)
                    for owner, value, count, age in snapshots
                    if owner == model_id and value is not None and count > 0 and 0 <= age < hours
                ]
                if inside:
                    mean = sum(v * c for v, c in inside) / sum(c for _, c in inside)
                    expected[model_id, name] = float(mean)
        assert found == expected

    check()


def test_a_summary_whose_value_is_no_number_counts_in_no_window(engine: Engine) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        for summary in ({"value": "7"}, {"value": True}, {"value": [1]}, {"other": 1.0}, {"value": 3}):
            builders.snapshot(session, "a", result_summary_jsonb=summary, period_end=NOW)
        assert window_means(session, aggregation(), NOW) == {("a", "day"): 3.0, ("a", "week"): 3.0}
        assert window_means(session, aggregation(value_field="other"), NOW)["a", "day"] == 1.0
        assert window_means(session, aggregation(windows={}), NOW) == {}


def test_a_window_may_be_longer_than_time(engine: Engine) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        builders.snapshot(session, "a", 2.0)
        ever = aggregation(windows={"ever": AggregationWindow(hours=10**12)})
        assert window_means(session, ever, NOW) == {("a", "ever"): 2.0}


def test_a_standing_has_the_windows_and_the_numbers_of_the_latest_snapshot(engine: Engine) -> None:
    with Session(engine) as session:
        builders.model(session, "a", first_scored_at=at(5))
        builders.model(session, "never scored")
        newest = {"value": 4.0, "ic": None, "note": "text", "flag": True, "day": 99.0}
        builders.snapshot(session, "a", 1.0, period_end=at(98 * HOUR))
        builders.snapshot(session, "a", period_end=at(99 * HOUR), result_summary_jsonb=newest)
        builders.snapshot(session, "a", None, 0, period_end=at(99.5 * HOUR))
        builders.snapshot(session, "a", 1000.0, period_end=at(101 * HOUR))
        a, never = ranking_of().standings(session, NOW)
    assert a.entry() == {
        "model_id": "a",
        "rank": None,
        "model_name": "name of a",
        "cruncher_name": "player a",
        "score": {
            "metrics": {"day": 2.5, "week": 2.5, "value": 4.0, "ic": None},
            "ranking": {"key": "day", "value": 2.5, "direction": "desc"},
        },
    }
    assert (never.model_id, never.value, never.metrics) == ("never scored", None, {"day": None, "week": None})


@pytest.mark.parametrize("key", ["ic", "value"])
def test_a_metric_or_a_field_of_the_score_may_rank(engine: Engine, key: str) -> None:
    config = CrunchConfig(aggregation=Aggregation(ranking_key=key))
    with Session(engine) as session:
        builders.model(session, "a")
        builders.snapshot(session, "a", result_summary_jsonb={"ic": 0.25, "value": 0.25}, period_end=NOW)
        [found] = Ranking(config, builders.settings_of()).standings(session, NOW)
    assert found.value == 0.25


@pytest.mark.parametrize("key", ["ic", "value"])
def test_who_has_gone_does_not_lead_by_what_was_true_when_it_went(engine: Engine, key: str) -> None:
    config = CrunchConfig(aggregation=Aggregation(ranking_key=key), metrics_window_hours=48)
    ranking = Ranking(config, builders.settings_of())
    with Session(engine) as session:
        for model_id, value, hour in (("gone", 1.0, 52.0), ("there", 0.5, 52.1)):
            builders.model(session, model_id)
            builders.snapshot(
                session, model_id, result_summary_jsonb={"ic": value, "value": value}, period_end=at(hour * HOUR)
            )
        ranked = ranking.ranked(ranking.standings(session, NOW))
    assert [(one.model_id, one.rank, one.value) for one in ranked] == [("there", 1, 0.5), ("gone", None, None)]


def test_models_are_ranked_by_value_then_first_score_then_id() -> None:
    given_standings = [
        standing("z", 1.0, 5),
        standing("late", 1.0, 6),
        standing("b", 1.0, 5),
        standing("unknown first", 1.0, None),
        standing("best", 2.0, 9),
        standing("empty", None),
        standing("__ensemble_all__", 100.0),
    ]
    assert order_of(ranking_of().ranked(given_standings)) == [
        ("best", 1),
        ("b", 2),
        ("z", 3),
        ("late", 4),
        ("unknown first", 5),
        ("empty", None),
        ("__ensemble_all__", None),
    ]
    ascending = [standing("low", -1.0, direction="asc"), standing("high", 1.0, direction="asc")]
    assert order_of(ranking_of().ranked(ascending)) == [("low", 1), ("high", 2)]


@given(st.permutations(range(8)), st.lists(st.sampled_from([None, 0.0, -0.0, 1.0]), min_size=8, max_size=8))
def test_the_order_does_not_depend_on_the_order_given(order: list[int], given_values: list[float | None]) -> None:
    standings = [standing(f"m{n}", value, n % 2) for n, value in enumerate(given_values)]
    shuffled = [standings[n] for n in order]
    assert RANKING.ranked(shuffled) == RANKING.ranked(standings)


@pytest.fixture
def ranker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of an operator's; its `rank` is named by LEADERBOARD_RANKER."""
    module = ModuleType("operators_ranker")
    monkeypatch.setitem(sys.modules, "operators_ranker", module)
    return module


def replaced(ranker: ModuleType, function: Any) -> Ranking:
    ranker.rank = function  # type: ignore[attr-defined]  # a module made for the test
    return ranking_of(LEADERBOARD_RANKER="operators_ranker:rank")


def test_a_ranker_replaces_the_order(ranker: ModuleType) -> None:
    def backwards(entries: list[dict[str, Any]], aggregation: Aggregation) -> list[dict[str, Any]]:
        assert [entry["rank"] for entry in entries] == [None, None, None]
        assert aggregation.ranking_key == "day"
        return [entry for entry in reversed(entries) if entry["model_id"] != "b"]

    standings = [standing("a", 3.0), standing("b", 2.0), standing("c", 1.0), standing("empty", None)]
    found = replaced(ranker, backwards).ranked([*standings, standing("__ensemble_x__", 9.0)])
    assert order_of(found) == [("c", 1), ("a", 2), ("b", None), ("empty", None), ("__ensemble_x__", None)]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda entries, aggregation: 1 / 0, "ZeroDivisionError"),
        (lambda entries, aggregation: sys.exit(1), "SystemExit: 1"),
        (lambda entries, aggregation: [*entries, *entries], "a model twice"),
        (lambda entries, aggregation: [{"model_id": "stranger"}], "the unknown model 'stranger'"),
        (lambda entries, aggregation: None, "TypeError"),
        (lambda entries, aggregation: [{}], "KeyError"),
    ],
)
def test_a_ranker_that_does_wrong_ranks_nobody(ranker: ModuleType, function: Any, problem: str) -> None:
    with pytest.raises(RankingError, match=problem):
        replaced(ranker, function).ranked([standing("a", 1.0)])


@pytest.mark.parametrize("key", ["sharpe", "success", "failed_reason"])
def test_an_unknown_ranking_key_is_refused_with_the_keys_there_are(key: str) -> None:
    class Pnl(ScoreResult):
        pnl: float = 0.0

    config = CrunchConfig(aggregation=aggregation(ranking_key=key), metrics=["ic"], score_type=Pnl)
    with pytest.raises(
        ConfigurationError, match=rf"'{key}' is unknown; there are day, week, ic, value, pnl; what only"
    ):
        Ranking(config, builders.settings_of())


def test_a_ranker_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no_such_module"):
        ranking_of(LEADERBOARD_RANKER="no_such_module:rank")
