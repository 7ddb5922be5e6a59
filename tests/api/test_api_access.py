"""The tier of a path is the same however it is spelled."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from api_cases import settings
from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.api import access
from coordinator_node.api.access import AccessRules, Tier

TIERS = {
    "/healthz": Tier.PUBLIC,
    "/info": Tier.PUBLIC,
    "/docs": Tier.PUBLIC,
    "/docs/oauth2-redirect": Tier.PUBLIC,
    "/openapi.json": Tier.PUBLIC,
    "/reports/leaderboard": Tier.PUBLIC,
    "/reports/models": Tier.PUBLIC,
    "/reports/models/global": Tier.PUBLIC,
    "/reports/feeds/tail": Tier.PUBLIC,
    "/reports/checkpoints/rewards": Tier.PUBLIC,
    "/reports/predictions": Tier.READ,
    "/reports/snapshots": Tier.READ,
    "/reports/checkpoints": Tier.READ,
    "/reports/emissions/latest": Tier.READ,
    "/data/backfill/index": Tier.READ,
    "/reports/modelsecrets": Tier.READ,
    "/healthzz": Tier.READ,
    "/": Tier.READ,
    "/reports/checkpoints/latest": Tier.ADMIN,
    "/reports/checkpoints/1/confirm": Tier.ADMIN,
    "/reports/checkpoints/rewardsx": Tier.ADMIN,
    "/reports/backfill": Tier.ADMIN,
    "/reports/backfill/jobs": Tier.ADMIN,
    "/tournament/rounds/1/score": Tier.ADMIN,
    "/custom/anything": Tier.ADMIN,
}
RULES = AccessRules(settings())


@pytest.mark.parametrize(("path", "tier"), TIERS.items())
def test_default_prefixes_match_whole_segments(path: str, tier: Tier) -> None:
    assert RULES.tier_of_path(path) is tier


@pytest.mark.parametrize("path", [path for path, tier in TIERS.items() if tier is Tier.ADMIN])
@given(data=st.data())
def test_no_spelling_of_an_admin_path_escapes_its_tier(path: str, data: st.DataObject) -> None:
    pieces = []
    for segment in path.strip("/").split("/"):
        pieces += [data.draw(st.sampled_from(["", "", "", "/", "/.", "/./", "/reports/..", "/healthz/..", "\\"])), "/"]
        shown = data.draw(st.sampled_from([segment, f"%{ord(segment[0]):02x}{segment[1:]}", quote(segment)]))
        pieces.append(shown)
    spelled = "".join(pieces) + data.draw(st.sampled_from(["", "/", "//", "/."]))
    spelled = spelled.replace("/", data.draw(st.sampled_from(["/", "%2F", "%2f", "%252F"])))
    assert RULES.tier_of_path(unquote(spelled)) is Tier.ADMIN


def test_a_path_is_as_closed_as_its_most_closed_spelling() -> None:
    assert RULES.tier_of_path("/custom/../reports/leaderboard") is Tier.ADMIN
    assert RULES.tier_of_path("/reports/leaderboard/../checkpoints/1") is Tier.ADMIN


def test_the_longest_prefix_decides_and_of_equal_ones_the_stricter() -> None:
    rules = AccessRules(settings(API_PUBLIC_PREFIXES="/a,/a/b/c,/same", API_ADMIN_PREFIXES="/a/b,/same"))
    assert [rules.tier_of_path(path) for path in ("/a/x", "/a/b/x", "/a/b/c", "/same", "/healthz")] == [
        Tier.PUBLIC,
        Tier.ADMIN,
        Tier.PUBLIC,
        Tier.ADMIN,
        Tier.READ,
    ]


def test_a_prefix_that_ends_in_a_slash_is_only_what_is_below() -> None:
    assert RULES.tier_of_path("/reports/checkpoints/") is Tier.READ
    assert RULES.tier_of_path("/reports/checkpoints/x") is Tier.ADMIN
    assert AccessRules(settings(API_PUBLIC_PREFIXES="/")).tier_of_path("/anything") is Tier.PUBLIC


@pytest.mark.parametrize("slash", ["%2F", "%252F", "%25252F"])
def test_a_path_that_was_encoded_again_and_again_is_still_known(slash: str) -> None:
    assert RULES.tier_of_path(unquote(f"/reports{slash}checkpoints{slash}latest")) is Tier.ADMIN


def test_what_is_remembered_of_paths_is_bounded() -> None:
    rules = AccessRules(settings())
    for number in range(3 * access._MOST_KNOWN + 1):
        rules.tier_of_path(f"/reports/predictions/{number}")
        rules.tier_of_path(f"/custom/{'x' * access._LONGEST_KNOWN}{number}")
    assert 0 < len(rules._known) <= access._MOST_KNOWN
    assert max(map(len, rules._known)) <= access._LONGEST_KNOWN
    assert rules.tier_of_path("/reports/checkpoints/1") is rules.tier_of_path("/reports/checkpoints/1") is Tier.ADMIN
