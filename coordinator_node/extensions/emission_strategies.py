"""Ways to pay beside the default tiers; each is set as a config's `build_emission`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from coordinator_node.entities.emission import FRAC_64_MULTIPLIER, allocate_exactly, emission_of, pct_to_frac64
from coordinator_node.entities.prediction import EmissionCheckpoint
from coordinator_node.metrics.values import as_number

_SHARE_UNITS = 10**15
"""Shares are rounded to integers of this unit before the exact allocation; a float holds no finer one of 1."""


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
