"""The strategies that pay by rank and by value: their formulas, exact sums, and whom they leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from coordinator_node.entities.emission import (
    FRAC_64_MULTIPLIER,
    check_emission,
    default_build_emission,
    tier_rewards,
)
from coordinator_node.extensions.emission_strategies import (
    benchmark_gated,
    best_per_player,
    contribution_weighted_emission,
    softmax,
    top_k_exponential,
)

Build = Callable[..., Any]


def entry(place: int, value: Any = None, player: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "model_id": f"m{place}",
        "model_name": f"name of m{place}",
        "cruncher_id": player or f"p{place}",
        "cruncher_name": f"player {player or place}",
        "rank": place + 1,
        "prediction_count": 1,
        "snapshot_count": 1,
        "result_summary": {"score_recent": value},
        **fields,
    }


def of_values(*values: Any) -> list[dict[str, Any]]:
    return [entry(place, value) for place, value in enumerate(values)]


def of_players(*players: str) -> list[dict[str, Any]]:
    return [entry(place, -float(place), player) for place, player in enumerate(players)]


def shares(build: Build, ranked: list[dict[str, Any]], **options: Any) -> list[int]:
    """Each ranked model's share; 0 where the emission does not name it."""
    emission = build(ranked, "crunch", **options)
    check_emission(emission, len(ranked))
    by_index = {reward["cruncher_index"]: reward["reward_pct"] for reward in emission["cruncher_rewards"]}
    return [by_index.get(index, 0) for index in range(len(ranked))]


def gated_by_the_middle(ranked: list[dict[str, Any]], *addresses: Any, **options: Any) -> Any:
    benchmark = ranked[len(ranked) // 2]["model_id"] if ranked else "nobody"
    return benchmark_gated(ranked, *addresses, benchmark=benchmark, **options)


STRATEGIES: dict[str, Build] = {
    "tiers": default_build_emission,
    "contribution": contribution_weighted_emission,
    "top k": top_k_exponential,
    "top 3, equal": partial(top_k_exponential, k=3, decay=1.0),
    "top k, steep": partial(top_k_exponential, k=10_000, decay=0.01),
    "softmax": softmax,
    "softmax, cold": partial(softmax, temperature=1e-9),
    "softmax, hot": partial(softmax, temperature=1e12),
    "gated": gated_by_the_middle,
    "one a player": best_per_player(default_build_emission),
    "one a player, softmax": best_per_player(softmax),
    "one a player, gated": best_per_player(gated_by_the_middle),
}
RISES_NEVER = [name for name in STRATEGIES if name != "contribution"]
VALUES = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-3, 3) | st.integers(-2, 2)


@pytest.mark.parametrize("name", STRATEGIES)
@given(st.lists(st.tuples(VALUES, st.sampled_from("abcdefgh")), max_size=40))
def test_any_ranking_gives_integers_that_sum_exactly(name: str, models: list[tuple[float, str]]) -> None:
    in_order = sorted(models, reverse=True)
    ranked = [entry(place, value, player) for place, (value, player) in enumerate(in_order)]
    paid = shares(STRATEGIES[name], ranked)
    assert sum(paid) in ({0} if not ranked else {0, FRAC_64_MULTIPLIER} if "gated" in name else {FRAC_64_MULTIPLIER})
    if name.startswith("one a player"):
        firsts = [place for place, model in enumerate(in_order) if model[1] not in {m[1] for m in in_order[:place]}]
        assert {place for place, share in enumerate(paid) if share} <= set(firsts)
        paid = [paid[place] for place in firsts]
    if name in RISES_NEVER:
        assert paid == sorted(paid, reverse=True)


@pytest.mark.parametrize("name", STRATEGIES)
def test_any_number_of_models_up_to_ten_thousand(name: str) -> None:
    for count in (0, 1, 2, 3, 9, 10, 11, 999, 10_000):
        ranked = [entry(place, -place / 7, f"p{place // 3}") for place in range(count)]
        paid = shares(STRATEGIES[name], ranked)
        gated_out = "gated" in name and count in (1, *((2, 3) if name.startswith("one") else ()))
        assert sum(paid) == (0 if count == 0 or gated_out else FRAC_64_MULTIPLIER), count


@given(st.integers(1, 60), st.integers(1, 80), st.floats(0.01, 1.0))
def test_top_k_is_a_geometric_row(count: int, k: int, decay: float) -> None:
    paid = shares(top_k_exponential, of_values(*[0.0] * count), k=k, decay=decay)
    row = [decay**place for place in range(min(count, k))]
    expected = [1e9 * weight / math.fsum(row) for weight in row] + [0.0] * max(0, count - k)
    assert paid == pytest.approx(expected, abs=1.01)


def test_top_k_by_hand() -> None:
    assert shares(top_k_exponential, of_values(*[0.0] * 4), k=3, decay=0.5) == [
        571_428_571,
        285_714_286,
        142_857_143,
        0,
    ]


@given(st.lists(st.floats(-50, 50) | st.integers(-3, 3), min_size=1, max_size=40), st.floats(0.1, 10))
def test_softmax_is_that_of_scipy(values: list[float], temperature: float) -> None:
    paid = shares(softmax, of_values(*values), temperature=temperature)
    expected = special.softmax(np.array(values) / temperature) * 1e9
    assert paid == pytest.approx(expected.tolist(), abs=1.01)
    turned = shares(softmax, of_values(*(-value for value in values)), temperature=temperature, direction="asc")
    assert turned == paid


def test_softmax_pays_nothing_for_what_is_no_number() -> None:
    assert shares(softmax, of_values(2.0, None, math.nan, "2.0")) == [FRAC_64_MULTIPLIER, 0, 0, 0]
    assert shares(softmax, of_values(None, None)) == [FRAC_64_MULTIPLIER // 2] * 2
    assert shares(softmax, of_values(1e308, -1e308), temperature=1e-300) == [FRAC_64_MULTIPLIER, 0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(softmax, key="luck"), "no ranked model's result_summary has 'luck'; there are score_recent"),
        (partial(softmax, temperature=0.0), "the temperature must be finite and above 0"),
        (partial(softmax, temperature=math.nan), "the temperature must be finite"),
        (partial(softmax, direction="up"), "the direction 'desc' or 'asc'"),
        (partial(top_k_exponential, k=0), "k must be an integer of 1 or more"),
        (partial(top_k_exponential, k=2.5), "k must be an integer"),
        (partial(top_k_exponential, decay=0.0), "decay above 0"),
        (partial(top_k_exponential, decay=1.1), "at most 1"),
        (partial(top_k_exponential, decay=math.nan), "decay above 0"),
        (partial(benchmark_gated, benchmark="naive"), "the benchmark 'naive' is none of the 2 ranked models"),
        (best_per_player(lambda *given: {"crunch": "c"}), "'cruncher_rewards' must be a list"),
    ],
)
def test_what_cannot_be_paid_by_says_why(build: Build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(of_values(1.0, 0.0), "crunch")


@given(st.integers(1, 60), st.data())
def test_only_models_above_the_benchmark_are_paid_and_the_rest_is_stated(count: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, count - 1))
    ranked = of_values(*range(count, 0, -1))
    emission = benchmark_gated(ranked, "crunch", "compute", benchmark=f"m{place}")
    check_emission(emission, count)
    assert [reward["cruncher_index"] for reward in emission["cruncher_rewards"]] == list(range(place))
    tiers = tier_rewards(count)
    assert emission["retained_pct"] == sum(tiers[place:])
    # What each gets of the whole pool is its tier, to within a unit.
    kept = FRAC_64_MULTIPLIER - emission["retained_pct"]
    of_the_pool = [reward["reward_pct"] * kept / FRAC_64_MULTIPLIER for reward in emission["cruncher_rewards"]]
    assert of_the_pool == pytest.approx(tiers[:place], abs=1.01)


def test_nobody_above_the_benchmark_retains_all() -> None:
    emission = benchmark_gated(of_values(3.0, 2.0), "crunch", benchmark="m0")
    assert (emission["cruncher_rewards"], emission["retained_pct"]) == ([], FRAC_64_MULTIPLIER)


def test_a_benchmark_is_no_name_that_somebody_took() -> None:
    ranked = [entry(0, 2.0), entry(1, 1.0, model_name="benchmark")]
    with pytest.raises(ValueError, match="none of the 2 ranked"):
        benchmark_gated(ranked, "crunch", benchmark="benchmark")


def test_one_model_a_player_is_paid_as_if_alone() -> None:
    seen: list[list[dict[str, Any]]] = []

    def build(ranked: list[dict[str, Any]], *addresses: Any, **named: Any) -> Any:
        seen.append(ranked)
        return default_build_emission(ranked, *addresses, **named)

    emission = best_per_player(build)(of_players("ada", "ada", "bob", "ada", "bob"), "crunch", data_provider="data")
    assert [(one["model_id"], one["rank"]) for one in seen[0]] == [("m0", 1), ("m2", 2)]
    assert emission == {
        "crunch": "crunch",
        "cruncher_rewards": [
            {"cruncher_index": 0, "reward_pct": 625_000_000},
            {"cruncher_index": 2, "reward_pct": 375_000_000},
        ],
        "compute_provider_rewards": [],
        "data_provider_rewards": [{"provider": "data", "reward_pct": FRAC_64_MULTIPLIER}],
    }


def test_players_are_told_apart_by_their_ids() -> None:
    namesakes = [entry(place, None, player, cruncher_name="Ada") for place, player in enumerate(["a1", "a2", "a1"])]
    assert shares(best_per_player(default_build_emission), namesakes) == [625_000_000, 375_000_000, 0]
    unknown = [{**one, "cruncher_id": "", "cruncher_name": ""} for one in namesakes]
    assert shares(best_per_player(default_build_emission), unknown) == tier_rewards(3)
    by_name = [{key: value for key, value in one.items() if key != "cruncher_id"} for one in namesakes]
    assert shares(best_per_player(default_build_emission), by_name) == [FRAC_64_MULTIPLIER, 0, 0]


def test_what_is_retained_stays_stated_for_one_model_a_player() -> None:
    build = best_per_player(partial(benchmark_gated, benchmark="m2"))
    emission = build(of_players("ada", "ada", "naive", "bob"), "crunch")
    # Of three: ada's best, the benchmark, bob.
    assert emission["cruncher_rewards"] == [{"cruncher_index": 0, "reward_pct": FRAC_64_MULTIPLIER}]
    assert emission["retained_pct"] == sum(tier_rewards(3)[1:])
