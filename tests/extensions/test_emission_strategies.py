"""Emission by rank, contribution and diversity: the formula, what is missing, and exact sums."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.entities.emission import FRAC_64_MULTIPLIER, check_emission
from coordinator_node.extensions.emission_strategies import contribution_weighted_emission


def entry(contribution=None, model_correlation=None):
    return {"model_id": "m", "result_summary": {"contribution": contribution, "model_correlation": model_correlation}}


def rewards(entries, **options):
    emission = contribution_weighted_emission(entries, "crunch", **options)
    check_emission(emission, len(entries))
    return [reward["reward_pct"] for reward in emission["cruncher_rewards"]]


def test_the_formula_by_hand():
    # R = 2/3, 1/3; C = 0.25, 0.75; D = 0.2/1, 0.8/1; S = 0.5 R + 0.3 C + 0.2 D; 1 % each first.
    entries = [entry(0.01, 0.8), entry(0.03, -0.2)]
    first = 0.5 * 2 / 3 + 0.3 * 0.25 + 0.2 * 0.2
    assert rewards(entries) == [
        pytest.approx(1e7 + 9.8e8 * first, abs=1),
        pytest.approx(1e7 + 9.8e8 * (1 - first), abs=1),
    ]


def test_weights_need_not_sum_to_one():
    entries = [entry(0.01, 0.8), entry(0.03, -0.2)]
    doubled = rewards(entries, rank_weight=1.0, contribution_weight=0.6, diversity_weight=0.4)
    assert doubled == rewards(entries)


def test_what_is_missing_is_neutral():
    assert rewards([entry(), entry(), entry()], rank_weight=0.0, min_pct=0.0) == [333_333_334, 333_333_333, 333_333_333]
    # The mean of 0.02 and 0.04 is 0.03, so a third.
    middle = rewards([entry(0.02), entry(None), entry(0.04)], rank_weight=0.0, diversity_weight=0.0, min_pct=0.0)
    assert middle == [222_222_222, 333_333_333, 444_444_445]
    assert rewards([{"model_id": "m"}, {"result_summary": None}, entry(math.nan, "0.5")]) == rewards([entry()] * 3)


def test_harm_counts_as_nothing_and_no_merit_at_all_is_split():
    only = {"rank_weight": 0.0, "diversity_weight": 0.0, "min_pct": 0.0}
    assert rewards([entry(-0.5), entry(0.1)], **only) == [0, FRAC_64_MULTIPLIER]
    assert rewards([entry(-0.5), entry(-0.1)], **only) == [FRAC_64_MULTIPLIER // 2] * 2


def test_the_floor_gives_way_where_there_are_too_many_models():
    floored = rewards([entry()] * 20, min_pct=4.0)
    assert min(floored) >= 40_000_000
    everyone = rewards([entry()] * 300, min_pct=4.0)
    assert set(everyone) == {3_333_333, 3_333_334}


def test_nobody_ranked():
    emission = contribution_weighted_emission([], "crunch", "compute", "data")
    check_emission(emission, 0)
    assert emission["cruncher_rewards"] == []
    assert emission["data_provider_rewards"] == [{"provider": "data", "reward_pct": FRAC_64_MULTIPLIER}]


@pytest.mark.parametrize(
    "options",
    [
        {"rank_weight": -0.1},
        {"min_pct": -1.0},
        {"contribution_weight": math.nan},
        {"diversity_weight": math.inf},
        {"rank_weight": 0.0, "contribution_weight": 0.0, "diversity_weight": 0.0},
    ],
)
def test_wrong_weights_are_refused(options):
    with pytest.raises(ValueError, match="none may be negative"):
        contribution_weighted_emission([entry()], "crunch", **options)


NUMBERS = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1, 1)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=40),
    st.tuples(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10)).filter(lambda weights: sum(weights) > 0),
    st.floats(0, 200),
)
def test_any_ranking_sums_exactly_and_keeps_the_floor(metrics, weights, min_pct):
    entries = [entry(*pair) for pair in metrics]
    names = ("rank_weight", "contribution_weight", "diversity_weight")
    shares = rewards(entries, **dict(zip(names, weights, strict=True)), min_pct=min_pct)
    if entries:
        assert sum(shares) == FRAC_64_MULTIPLIER
        assert min(shares) >= min(round(min_pct * 1e7), FRAC_64_MULTIPLIER // len(entries))


@given(st.integers(1, 2000))
def test_by_rank_alone_it_never_rises_with_rank(count):
    shares = rewards([entry(0.1, 0.5)] * count)
    assert shares == sorted(shares, reverse=True)
