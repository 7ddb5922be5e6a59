"""Shares are integers that sum exactly, whatever the ranking's length."""

import copy
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.entities.emission import (
    FRAC_64_MULTIPLIER,
    allocate_exactly,
    check_emission,
    default_build_emission,
    pct_to_frac64,
    tier_rewards,
)

PERCENT = FRAC_64_MULTIPLIER // 100


def entries(count):
    return [{"model_id": f"m{index}", "rank": index + 1, "result_summary": {}} for index in range(count)]


def rewards_of(emission):
    return [reward["reward_pct"] for reward in emission["cruncher_rewards"]]


@pytest.mark.parametrize(
    ("pct", "frac"),
    [
        (100, 1_000_000_000),
        (100.0, 1_000_000_000),
        (0, 0),
        (35, 350_000_000),
        (0.1, 1_000_000),
        (33.3333333, 333_333_333),
    ],
)
def test_percent_to_frac64(pct, frac):
    assert pct_to_frac64(pct) == frac
    assert type(pct_to_frac64(pct)) is int


@pytest.mark.parametrize("pct", [float("nan"), float("inf")])
def test_a_percentage_must_be_finite(pct):
    with pytest.raises(ValueError, match="must be finite"):
        pct_to_frac64(pct)


@given(st.lists(st.integers(0, 10**15), max_size=60), st.integers(0, 10**12))
def test_allocation_is_the_largest_remainder_method(weights, total):
    units = allocate_exactly(weights, total)
    assert len(units) == len(weights)
    if not weights:
        return
    assert sum(units) == total
    whole = sum(weights)
    quotas = [Fraction(w * total, whole) if whole else Fraction(total, len(weights)) for w in weights]
    extra = [unit - int(quota) for unit, quota in zip(units, quotas, strict=True)]
    assert set(extra) <= {0, 1}
    remainders = [(int(quota) - quota, index) for index, quota in enumerate(quotas)]
    chosen = {index for _, index in sorted(remainders)[: sum(extra)]}
    assert {index for index, more in enumerate(extra) if more} == chosen


@given(st.lists(st.integers(0, 100), min_size=2, max_size=30), st.integers(0, 10**6))
def test_a_larger_or_earlier_weight_never_gets_less(weights, total):
    weights = sorted(weights, reverse=True)
    units = allocate_exactly(weights, total)
    assert units == sorted(units, reverse=True)


def test_allocation_by_hand():
    assert allocate_exactly([1, 1, 1], 100) == [34, 33, 33]
    assert allocate_exactly([0, 0], 3) == [2, 1]
    assert allocate_exactly([5, 0, 3, 2], 7) == [4, 0, 2, 1]  # quotas 3.5, 0, 2.1, 1.4
    assert allocate_exactly([], 5) == []


@pytest.mark.parametrize(("weights", "total"), [([-1, 2], 10), ([1], -1)])
def test_allocation_refuses_what_is_negative(weights, total):
    with pytest.raises(ValueError, match="must not be negative"):
        allocate_exactly(weights, total)


@pytest.mark.parametrize(
    ("count", "percents"),
    [
        (0, []),
        (1, [100]),
        (2, [62.5, 37.5]),
        (4, [43.75, 18.75, 18.75, 18.75]),
        (5, [40, 15, 15, 15, 15]),
        (10, [35, 10, 10, 10, 10, 5, 5, 5, 5, 5]),
        (12, [35, 10, 10, 10, 10, 5, 5, 5, 5, 5, 0, 0]),
    ],
)
def test_tiers(count, percents):
    assert tier_rewards(count) == [percent * PERCENT for percent in percents]


def test_tiers_of_any_number_of_models_sum_exactly_and_never_rise_with_rank():
    for count in [*range(60), 999, 10_000]:
        emission = default_build_emission(entries(count), "crunch", "compute", "data")
        check_emission(emission, count)
        rewards = rewards_of(emission)
        assert rewards == sorted(rewards, reverse=True)
        assert [reward["cruncher_index"] for reward in emission["cruncher_rewards"]] == list(range(count))


def test_three_models_share_the_odd_unit_by_rank():
    assert tier_rewards(3) == [500_000_000, 250_000_000, 250_000_000]
    assert tier_rewards(9) == [355_555_556, *[105_555_556] * 4, *[55_555_555] * 4]


def test_providers():
    emission = default_build_emission(entries(1), "crunch", "compute", None)
    assert emission == {
        "crunch": "crunch",
        "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": FRAC_64_MULTIPLIER}],
        "compute_provider_rewards": [{"provider": "compute", "reward_pct": FRAC_64_MULTIPLIER}],
        "data_provider_rewards": [],
    }
    assert default_build_emission([], "crunch", "", "data")["compute_provider_rewards"] == []


def broken(change):
    emission = copy.deepcopy(default_build_emission(entries(3), "crunch", "compute", "data"))
    change(emission)
    return emission


def test_an_emission_without_rewards_is_sound():
    check_emission(default_build_emission([], ""), 0)
    check_emission({**default_build_emission([], ""), "note": "further keys are nobody's business"}, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("crunch"), "'crunch' must be"),
        (lambda e: e.pop("data_provider_rewards"), "'data_provider_rewards' must be a list"),
        (lambda e: e.update(cruncher_rewards={}), "'cruncher_rewards' must be a list, got dict"),
        (lambda e: e["cruncher_rewards"].append(7), r"cruncher_rewards\[3\] must be a dict"),
        (lambda e: e["cruncher_rewards"][1].pop("cruncher_index"), r"cruncher_rewards\[1\] must be a dict"),
        (lambda e: e["cruncher_rewards"][1].update(reward_pct=0.5), r"cruncher_rewards\[1\].reward_pct must be an int"),
        (lambda e: e["cruncher_rewards"][1].update(reward_pct=True), r"\[1\].reward_pct must be an integer"),
        (lambda e: e["cruncher_rewards"][2].update(reward_pct=-1), r"\[2\].reward_pct must be an integer of 0 or more"),
        (lambda e: e["cruncher_rewards"][0].update(reward_pct=1), "cruncher_rewards sums to 500000001"),
        (lambda e: e["cruncher_rewards"][0].update(reward_pct=500_000_001), "cruncher_rewards sums to 1000000001"),
        (lambda e: e["compute_provider_rewards"][0].update(reward_pct=999_999_999), "compute_provider_rewards sums to"),
        (lambda e: e["cruncher_rewards"][1].update(cruncher_index=3), "unknown cruncher_index 3; the ranking has 3"),
        (lambda e: e["cruncher_rewards"][1].update(cruncher_index=-1), "unknown cruncher_index -1"),
        (lambda e: e["cruncher_rewards"][1].update(cruncher_index="1"), "unknown cruncher_index '1'"),
        (lambda e: e["cruncher_rewards"][1].update(cruncher_index=True), "unknown cruncher_index True"),
        (lambda e: e["cruncher_rewards"][1].update(cruncher_index=0), "cruncher_index 0 is repeated"),
        (lambda e: e["data_provider_rewards"][0].update(provider=""), "data_provider_rewards needs the provider's"),
        (
            lambda e: e.update(data_provider_rewards=[{"provider": "d", "reward_pct": 500_000_000}] * 2),
            "data_provider_rewards repeats the provider d",
        ),
        (lambda e: e.update(retained_pct=0.5), "retained_pct must be an integer from 0 to 1000000000, got 0.5"),
        (lambda e: e.update(retained_pct=-1), "retained_pct must be an integer"),
        (lambda e: e.update(retained_pct=1_000_000_001), "retained_pct must be an integer"),
    ],
)
def test_a_wrong_emission_is_refused_with_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        check_emission(broken(change), 3)


def test_what_is_no_dict_is_refused():
    with pytest.raises(ValueError, match="expected a dict, got NoneType"):
        check_emission(None, 3)
