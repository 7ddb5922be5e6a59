"""Ways to pay beside the default tiers; each is set as a config's `build_emission`.

Options are bound with `functools.partial`, as in `build_emission=partial(top_k_exponential, k=5)`. Every strategy gets
the ranking in rank order, and makes its shares integers that sum exactly by `allocate_exactly`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from coordinator_node.entities.emission import (
    FRAC_64_MULTIPLIER,
    allocate_exactly,
    check_emission,
    emission_of,
    pct_to_frac64,
    tier_rewards,
)
from coordinator_node.entities.prediction import EmissionCheckpoint, RetainingEmission
from coordinator_node.metrics.values import as_number

type BuildEmission = Callable[..., EmissionCheckpoint]
"""(ranked_entries, crunch_pubkey, compute_provider=None, data_provider=None) -> EmissionCheckpoint."""

_SHARE_UNITS = 10**15
"""Shares are rounded to integers of this unit before the exact allocation; a float holds no finer one of 1."""


def top_k_exponential(
    ranked_entries: list[dict[str, Any]],
    crunch_pubkey: str,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    k: int = 10,
    decay: float = 0.7,
) -> EmissionCheckpoint:
    """Pays the first k models, each `decay` times as much as the one before it.

    Model i = 1..k gets decay^(i - 1) / (1 + decay + … + decay^(m - 1)), m being k or the number of models if that is
    smaller; the others get 0. Shares never rise with rank.

    Source: exponential ranking selection, p_i = c^(N - i) / sum_j c^(N - j), of Blickle and Thiele, "A Comparison of
    Selection Schemes Used in Evolutionary Algorithms", Evolutionary Computation 4(4), 1996, with rank 1 as the best and
    cut off after k.

    Raises:
        ValueError: k is not an integer of 1 or more, or decay not in (0, 1].
    """
    if type(k) is not int or k < 1 or not 0.0 < decay <= 1.0:
        raise ValueError(f"k={k!r}, decay={decay!r}: k must be an integer of 1 or more, decay above 0 and at most 1")
    weights = [decay**place if place < k else 0.0 for place in range(len(ranked_entries))]
    return emission_of(_exactly(weights), crunch_pubkey, compute_provider, data_provider)


def softmax(
    ranked_entries: list[dict[str, Any]],
    crunch_pubkey: str,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    key: str = "score_recent",
    direction: Literal["desc", "asc"] = "desc",
    temperature: float = 1.0,
) -> EmissionCheckpoint:
    """Pays by how far the models' values lie apart, not only by their order.

    Model i gets exp(v_i / temperature) / sum_j exp(v_j / temperature), v being result_summary[key], with its sign
    turned for direction "asc", where less is better. A difference of one temperature is a factor of e; the
    temperature is in the value's own unit. A model without a number there gets 0; if no model has one, all get the
    same. Where key and direction are those of the ranking, shares never rise with rank.

    Source: Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990; the largest
    value is taken off first so that no exponential overflows (Goodfellow et al., "Deep Learning", 2016, section 4.1).

    Raises:
        ValueError: the temperature is not above 0 or not finite, the direction is unknown, or no entry has the key.
    """
    if not (math.isfinite(temperature) and temperature > 0.0) or direction not in ("desc", "asc"):
        raise ValueError(
            f"temperature={temperature!r}, direction={direction!r}: the temperature must be finite and above 0, the"
            " direction 'desc' or 'asc'"
        )
    _check_key(ranked_entries, key)
    sign = 1.0 if direction == "desc" else -1.0
    values = [None if (value := _metric(entry, key)) is None else sign * value for entry in ranked_entries]
    largest = max((value for value in values if value is not None), default=0.0)
    weights = [0.0 if value is None else math.exp((value - largest) / temperature) for value in values]
    return emission_of(_exactly(weights), crunch_pubkey, compute_provider, data_provider)


def benchmark_gated(
    ranked_entries: list[dict[str, Any]],
    crunch_pubkey: str,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    benchmark: str,
) -> RetainingEmission:
    """Pays only the models that rank above the benchmark, which is the model of that id; the rest is retained.

    Every ranked model has its default tier t_i of the pool. Those before the benchmark keep theirs; those of the
    benchmark and of all after it are held back: retained_pct = 100 % - sum of t_j over the models before it. The
    list of rewards divides what is paid out: model i gets t_i / sum_j t_j, which never rises with rank. Nobody before
    the benchmark: no rewards, and all is retained.

    The benchmark is named by its id, because anybody may give a model its name. Source: the default tiers of
    `tier_rewards`; a baseline to be beaten before anything is paid is common in forecasting competitions.

    Raises:
        ValueError: there are ranked models and the benchmark is none of them, so that nobody can be compared with it.
    """
    ids = [entry.get("model_id") for entry in ranked_entries]
    if ids and benchmark not in ids:
        raise ValueError(
            f"the benchmark {benchmark!r} is none of the {len(ids)} ranked models of the period; name a model id that"
            " was scored in it"
        )
    kept = tier_rewards(len(ids))[: ids.index(benchmark)] if ids else []
    emission = emission_of(allocate_exactly(kept), crunch_pubkey, compute_provider, data_provider)
    return {**emission, "retained_pct": FRAC_64_MULTIPLIER - sum(kept)}


def best_per_player(build_emission: BuildEmission) -> BuildEmission:
    """The strategy `build_emission` over each player's best ranked model alone, so that many models bring no more.

    `build_emission` gets these entries in rank order with their ranks counted anew from 1; all other models are not
    among the rewards. A player is known by the entry's cruncher_id, else by its cruncher_name; an entry with neither
    counts as a player's only one. Shares never rise with rank where they do not for `build_emission`.

    The strategy that is returned raises what `build_emission` raises, and ValueError where it returns what
    `check_emission` refuses.
    """

    def build(ranked_entries: list[dict[str, Any]], *addresses: Any, **named: Any) -> EmissionCheckpoint:
        indexes = _best_of_each_player(ranked_entries)
        best = [{**ranked_entries[index], "rank": rank} for rank, index in enumerate(indexes, 1)]
        emission = build_emission(best, *addresses, **named)
        check_emission(emission, len(best))
        rewards = emission["cruncher_rewards"]
        return {
            **emission,
            "cruncher_rewards": [{**reward, "cruncher_index": indexes[reward["cruncher_index"]]} for reward in rewards],
        }

    return build


def contribution_weighted_emission(
    ranked_entries: list[dict[str, Any]],
    crunch_pubkey: str,
    compute_provider: str | None = None,
    data_provider: str | None = None,
    *,
    rank_weight: float = 0.5,
    contribution_weight: float = 0.3,
    diversity_weight: float = 0.2,
    min_pct: float = 1.0,
) -> EmissionCheckpoint:
    """Pays for rank, for what a model adds to the ensemble, and for differing from the others.

    With n models in rank order i = 1..n, three lists of merits, each scaled to sum to 1:

    - R_i: n + 1 - i, so that the first of n gets n times the last;
    - C_i: max(0, contribution);
    - D_i: max(0, 1 - abs(model_correlation)).

    Model i gets f + (100 % - n * f) * S_i, where S = (rank_weight * R + contribution_weight * C + diversity_weight *
    D) / (sum of the three weights), and the floor f is min_pct, or 100 % / n where n models of min_pct would be more
    than there is. `contribution` and `model_correlation` are read from the entry's result_summary. One that is missing
    or not finite is neutral: the model counts with the mean of the models that have one. A list without any merit
    above 0 splits its part equally. The shares are integers that sum to exactly 1_000_000_000 (largest remainder).

    Source: the parts and their weights are those that 0.1.84 published; how each is scaled is this engine's own.

    Raises:
        ValueError: a weight or min_pct is negative or not finite, or all three weights are 0.
    """
    weights = (rank_weight, contribution_weight, diversity_weight)
    if not all(math.isfinite(value) and value >= 0.0 for value in (*weights, min_pct)) or sum(weights) <= 0.0:
        raise ValueError(
            f"rank_weight={rank_weight}, contribution_weight={contribution_weight}, "
            f"diversity_weight={diversity_weight}, min_pct={min_pct}: none may be negative, and not all weights 0"
        )
    count = len(ranked_entries)
    if count == 0:
        return emission_of([], crunch_pubkey, compute_provider, data_provider)
    merits = (
        _shares([float(count - position) for position in range(count)]),
        _shares([_positive_contribution(entry) for entry in ranked_entries]),
        _shares([_diversity(entry) for entry in ranked_entries]),
    )
    combined = [
        math.fsum(w * merit for w, merit in zip(weights, row, strict=True)) for row in zip(*merits, strict=True)
    ]
    total_weight = math.fsum(weights)
    floor = min(pct_to_frac64(min_pct), FRAC_64_MULTIPLIER // count)
    above = allocate_exactly(
        [round(share / total_weight * _SHARE_UNITS) for share in combined], FRAC_64_MULTIPLIER - count * floor
    )
    return emission_of([floor + part for part in above], crunch_pubkey, compute_provider, data_provider)


def _exactly(weights: Sequence[float]) -> list[int]:
    """Shares in frac64 in proportion to weights of 0 to 1, of which the largest is not far below 1, or all are 0."""
    return allocate_exactly([round(weight * _SHARE_UNITS) for weight in weights])


def _best_of_each_player(ranked_entries: Iterable[dict[str, Any]]) -> list[int]:
    first: dict[object, int] = {}
    for index, entry in enumerate(ranked_entries):
        player = entry.get("cruncher_id") or entry.get("cruncher_name")
        first.setdefault(player or ("nobody's", index), index)
    return list(first.values())


def _check_key(ranked_entries: Sequence[dict[str, Any]], key: str) -> None:
    known = {name for entry in ranked_entries for name in entry.get("result_summary") or {}}
    if ranked_entries and key not in known:
        raise ValueError(
            f"no ranked model's result_summary has {key!r}; there are {', '.join(sorted(known)) or 'none'}"
        )


def _positive_contribution(entry: dict[str, Any]) -> float | None:
    contribution = _metric(entry, "contribution")
    return None if contribution is None else max(0.0, contribution)


def _diversity(entry: dict[str, Any]) -> float | None:
    correlation = _metric(entry, "model_correlation")
    return None if correlation is None else max(0.0, 1.0 - abs(correlation))


def _metric(entry: dict[str, Any], name: str) -> float | None:
    return as_number((entry.get("result_summary") or {}).get(name))


def _shares(merits: Sequence[float | None]) -> list[float]:
    """Merits scaled to sum to 1, None being the mean of the known ones; all equal where there is no merit."""
    known = [merit for merit in merits if merit is not None]
    largest = max(known, default=0.0)
    if largest == 0.0:
        return [1.0 / len(merits)] * len(merits)
    # Beside the largest, so that no sum is beyond the largest float.
    neutral = math.fsum(merit / largest for merit in known) / len(known)
    filled = [neutral if merit is None else merit / largest for merit in merits]
    total = math.fsum(filled)
    return [merit / total for merit in filled]
