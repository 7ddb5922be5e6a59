"""Reward shares in frac64: integers, 1_000_000_000 for 100 %, that sum exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator_node.entities.prediction import CruncherReward, EmissionCheckpoint, ProviderReward

FRAC_64_MULTIPLIER = 1_000_000_000

TIER_PERCENTS: tuple[int, ...] = (35, 10, 10, 10, 10, 5, 5, 5, 5, 5)
"""Percent for the 1st, the 2nd to 5th, and the 6th to 10th; they sum to 100."""


def pct_to_frac64(pct: float) -> int:
    """A percentage (0-100) in frac64, rounded to the nearest unit: 100.0 is 1_000_000_000.

    Several rounded percentages need not sum to exactly 100 %: use `allocate_exactly` for a whole list.

    Raises:
        ValueError: NaN or infinite.
    """
    if not math.isfinite(pct):
        raise ValueError(f"a percentage must be finite, got {pct}")
    return round(pct * FRAC_64_MULTIPLIER / 100)


def allocate_exactly(weights: Sequence[int], total: int = FRAC_64_MULTIPLIER) -> list[int]:
    """Integers in proportion to `weights` that sum to exactly `total`, by the largest-remainder method.

    Also known as Hamilton's; see Balinski and Young, "Fair Representation", 1982.

    Each entry gets the whole part of its quota weight * total / sum(weights); the units still missing go one each to
    the largest fractional parts, equal ones by index, so that a larger weight never gets less than a smaller one and
    an earlier entry never less than a later one of the same weight. All in integers.

    Args:
        weights: not negative; where all are 0, the split is equal. An empty list gives an empty list.
        total: what is handed out, not negative.

    Raises:
        ValueError: a negative weight or total.
    """
    if total < 0 or any(weight < 0 for weight in weights):
        raise ValueError("weights and total of an allocation must not be negative")
    if not weights:
        return []
    shares = list(weights) if any(weights) else [1] * len(weights)
    whole = sum(shares)
    quotas = [divmod(share * total, whole) for share in shares]
    units = [quotient for quotient, _ in quotas]
    missing = total - sum(units)
    by_remainder = sorted(range(len(shares)), key=lambda index: (-quotas[index][1], index))
    for index in by_remainder[:missing]:
        units[index] += 1
    return units


def tier_rewards(count: int) -> list[int]:
    """The default tiers for `count` ranked models, in frac64 and in rank order.

    1st 35 %, 2nd-5th 10 % each, 6th-10th 5 % each; what fewer than ten leave over is split equally among all.
    """
    tiers = [*TIER_PERCENTS[:count], *[0] * (count - len(TIER_PERCENTS))]
    left_over = 100 - sum(tiers)
    # Percent times count: the equal split of what is left over stays in integers.
    return allocate_exactly([tier * count + left_over for tier in tiers])


def emission_of(
    rewards: Sequence[int],
    crunch_pubkey: str,
    compute_provider: str | None = None,
    data_provider: str | None = None,
) -> EmissionCheckpoint:
    """The emission that pays `rewards[i]` (frac64) to the i-th entry of the ranking.

    A provider whose address is given takes the whole of its own list; without an address the list is empty.
    """
    return {
        "crunch": crunch_pubkey,
        "cruncher_rewards": [
            CruncherReward(cruncher_index=index, reward_pct=reward) for index, reward in enumerate(rewards)
        ],
        "compute_provider_rewards": _whole_to(compute_provider),
        "data_provider_rewards": _whole_to(data_provider),
    }


def default_build_emission(
    ranked_entries: list[dict[str, Any]],
    crunch_pubkey: str,
    compute_provider: str | None = None,
    data_provider: str | None = None,
) -> EmissionCheckpoint:
    """Pays the default tiers by position in `ranked_entries`, which is in rank order; see `tier_rewards`.

    No entries give no rewards; an empty address gives that provider an empty list.
    """
    return emission_of(tier_rewards(len(ranked_entries)), crunch_pubkey, compute_provider, data_provider)


def check_emission(emission: object, ranked_count: int) -> None:
    """Refuses an emission that must not be paid out.

    Args:
        emission: what a `build_emission` returned.
        ranked_count: length of the ranking that `cruncher_index` points into.

    Raises:
        ValueError: it is no EmissionCheckpoint, a share is not an integer or is negative, a non-empty list does not
            sum to 1_000_000_000, an index or a provider is unknown or repeated, or `retained_pct` is no share; the
            message names which.
    """
    if not isinstance(emission, Mapping):
        raise ValueError(f"emission: expected a dict, got {type(emission).__name__}")
    if not isinstance(emission.get("crunch"), str):
        raise ValueError("emission: 'crunch' must be the competition's address as text")
    _check_crunchers(_checked_rewards(emission, "cruncher_rewards", "cruncher_index"), ranked_count)
    for name in ("compute_provider_rewards", "data_provider_rewards"):
        _check_providers(name, _checked_rewards(emission, name, "provider"))
    retained = emission.get("retained_pct", 0)
    if type(retained) is not int or not 0 <= retained <= FRAC_64_MULTIPLIER:
        raise ValueError(f"emission: retained_pct must be an integer from 0 to {FRAC_64_MULTIPLIER}, got {retained!r}")


def _whole_to(provider: str | None) -> list[ProviderReward]:
    return [ProviderReward(provider=provider, reward_pct=FRAC_64_MULTIPLIER)] if provider else []


def _checked_rewards(emission: Mapping[str, Any], name: str, target: str) -> list[Any]:
    """The targets of the list `name`, once its shape, its shares and their sum are checked."""
    rewards = emission.get(name)
    if not isinstance(rewards, list):
        raise ValueError(f"emission: {name!r} must be a list, got {type(rewards).__name__}")
    for position, reward in enumerate(rewards):
        if not isinstance(reward, Mapping) or not {target, "reward_pct"} <= set(reward):
            raise ValueError(f"emission: {name}[{position}] must be a dict of {target!r} and 'reward_pct': {reward!r}")
        share = reward["reward_pct"]
        if type(share) is not int or share < 0:
            raise ValueError(f"emission: {name}[{position}].reward_pct must be an integer of 0 or more, got {share!r}")
    total = sum(reward["reward_pct"] for reward in rewards)
    if rewards and total != FRAC_64_MULTIPLIER:
        raise ValueError(f"emission: {name} sums to {total}, must be exactly {FRAC_64_MULTIPLIER}")
    return [reward[target] for reward in rewards]


def _check_crunchers(indexes: list[Any], ranked_count: int) -> None:
    seen: set[int] = set()
    for index in indexes:
        if type(index) is not int or not 0 <= index < ranked_count:
            raise ValueError(f"emission: unknown cruncher_index {index!r}; the ranking has {ranked_count} entries")
        if index in seen:
            raise ValueError(f"emission: cruncher_index {index} is repeated")
        seen.add(index)


def _check_providers(name: str, providers: list[Any]) -> None:
    seen: set[str] = set()
    for provider in providers:
        if not isinstance(provider, str) or not provider:
            raise ValueError(f"emission: {name} needs the provider's address as text, got {provider!r}")
        if provider in seen:
            raise ValueError(f"emission: {name} repeats the provider {provider}")
        seen.add(provider)
