"""Window sums: what is kept up is what is read anew, whatever is written when; means with and without the missing."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any

import builders
import pytest
from builders import at
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.crunch_config import Aggregation, AggregationWindow
from coordinator_node.services.window_sums import READ_ANEW_AFTER, RunningWindowSums, Sums, read_window_sums

AGGREGATION = Aggregation(
    windows={"short": AggregationWindow(hours=1), "long": AggregationWindow(hours=3)}, ranking_key="short"
)
MINUTE = 60.0
HOUR = 3600.0

# What happens between two looks: minutes that pass, and snapshots written, each ending so many minutes ago.
snapshots = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from([0.1, 0.2, 0.3, -5.0, 1e12, 1e-7, None]),
    st.integers(0, 3),
    st.sampled_from([-1, 0, 1, 30, 59, 60, 61, 179, 180, 181, 500]),
    st.integers(0, 2),
)
steps = st.tuples(st.sampled_from([0, 1, 7, 30, 55]), st.lists(snapshots, max_size=4))


def written(session: Session, model_id: str, value: float | None, count: int, ended: float, missing: int) -> str:
    scope = {"prediction_count": count, "missing_count": missing, "value": value}
    meta = {"missing_count": missing, "scopes": {"BTC-60": scope}}
    return builders.snapshot(session, model_id, value, count, period_end=at(ended), meta_jsonb=meta).id


def test_sums_that_are_kept_up_are_those_that_are_read_anew(engine: Engine) -> None:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(steps, min_size=2, max_size=6))
    def check(history: list[tuple[int, list[Any]]]) -> None:
        kept, now = RunningWindowSums(AGGREGATION), 10 * HOUR
        with Session(engine) as session:
            for model_id in "ab":
                builders.model(session, model_id)
            for minutes, made in history:
                now += minutes * MINUTE
                kept.written(
                    [
                        written(session, model_id, value, count, now - ago * MINUTE, missing)
                        for model_id, value, count, ago, missing in made
                    ]
                )
                found = kept.as_of(session, at(now))
                assert without_nothing(found) == without_nothing(read_window_sums(session, AGGREGATION, at(now)))
            session.rollback()

    check()


def without_nothing(sums: dict[str, Any]) -> dict[str, Any]:
    """A part of which nothing is counted may be named or not."""
    return {name: {key: own for key, own in parts.items() if own != Sums()} for name, parts in sums.items()}


def test_sums_by_hand(engine: Engine) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        written(session, "a", 0.1, 2, 10 * HOUR, 1)
        written(session, "a", 0.2, 1, 8 * HOUR, 0)
        written(session, "a", 7.0, 9, 6 * HOUR, 0)
        sums = read_window_sums(session, AGGREGATION, at(10 * HOUR))
    short = Sums(Fraction("0.2"), 2, 1)
    assert sums["short"] == {("a", None): short, ("a", "BTC-60"): short}
    assert sums["long"]["a", None] == Sums(Fraction("0.4"), 3, 1)


def test_what_the_missing_cost() -> None:
    sums = Sums(Fraction("0.6"), 2, 4)
    assert sums.mean(None) == 0.3
    assert sums.mean(0.0) == 0.1
    assert sums.mean(-0.15) == 0.0
    assert Sums(missing=3).mean(None) is None
    assert Sums(missing=3).mean(-1.5) == -1.5
    assert Sums().mean(1.0) is None
    assert Sums(Fraction(10) ** 400, 1, 0).mean(None) is None


def test_rows_that_others_wrote_count_without_what_only_ours_have(engine: Engine) -> None:
    with Session(engine) as session:
        builders.model(session, "a")
        foreign = {"missing_count": "many", "scopes": [1], "late": 3}
        builders.snapshot(session, "a", 4.0, 2, period_end=at(0), cycle_id=None, meta_jsonb=foreign)
        assert read_window_sums(session, AGGREGATION, at(0))["short"] == {("a", None): Sums(Fraction(8), 2, 0)}


def test_rows_that_were_changed_by_hand_come_right_within_the_hour(engine: Engine) -> None:
    kept = RunningWindowSums(AGGREGATION)
    with Session(engine) as session:
        builders.model(session, "a")
        written(session, "a", 1.0, 1, 0, 0)
        assert kept.as_of(session, at(60))["long"]["a", None].total == 1
        session.connection().execute(text("UPDATE snapshots SET result_summary_jsonb = '{\"value\": 2}'"))
        assert kept.as_of(session, at(120))["long"]["a", None].total == 1
        later = at(60) + READ_ANEW_AFTER
        assert kept.as_of(session, later)["long"]["a", None].total == 2
        # A clock that was set back is no reason to be wrong.
        assert kept.as_of(session, later - timedelta(hours=2))["long"] == {}


@pytest.mark.parametrize("windows", [{}, {"one": AggregationWindow(hours=10**9)}])
def test_no_windows_and_windows_longer_than_time(engine: Engine, windows: dict[str, Any]) -> None:
    kept = RunningWindowSums(Aggregation(windows=windows))
    with Session(engine) as session:
        builders.model(session, "a")
        for now in (0, 60):
            kept.written([written(session, "a", 1.0, 1, now, 0)])
            assert set(kept.as_of(session, at(now))) == set(windows)
        assert all(parts["a", None].weight == 2 for parts in kept.as_of(session, at(61)).values())
