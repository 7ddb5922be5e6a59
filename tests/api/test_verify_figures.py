"""The script's checks of figures that hash rightly: an operator who lies before sealing is caught by them alone."""

from __future__ import annotations

from typing import Any

import pytest
from evidence_cases import verifier

verify = verifier()
WHOLE = 1_000_000_000
START, END = "2026-03-01T00:00:00.000000Z", "2026-03-01T01:00:00.000000Z"


def shares(*rewards: tuple[int, Any]) -> dict[str, Any]:
    paid = [{"cruncher_index": index, "reward_pct": share} for index, share in rewards]
    return {"cruncher_rewards": paid, "compute_provider_rewards": [], "data_provider_rewards": []}


def test_shares_of_any_strategy() -> None:
    verify.check_shares(shares((0, WHOLE), (1, 0)), 2)
    verify.check_shares(shares(), 0)


@pytest.mark.parametrize(
    ("rewards", "named"),
    [
        ([(0, WHOLE + 5), (1, -5)], "no share"),
        ([(0, WHOLE / 1)], "no share"),
        ([(0, WHOLE - 1), (0, 1)], "cruncher_index 0 twice"),
        ([(0, WHOLE - 1), (2, 1)], "cruncher_index 2, which the ranking does not have"),
        ([(0, WHOLE - 1)], "sum to 999999999"),
        ([(0, WHOLE - 1), (0.5, 1)], "cruncher_index 0.5, which the ranking does not have"),
    ],
)
def test_wrong_shares_of_any_strategy_are_named(rewards: list[tuple[int, Any]], named: str) -> None:
    with pytest.raises(verify.LieError, match=named):
        verify.check_shares(shares(*rewards), 2)


@pytest.mark.parametrize("retained", [-1, WHOLE + 1, 0.5, True, None])
def test_what_is_retained_is_a_share(retained: Any) -> None:
    verify.check_shares({**shares(), "retained_pct": WHOLE}, 2)
    with pytest.raises(verify.LieError, match="retained_pct"):
        verify.check_shares({**shares((0, WHOLE)), "retained_pct": retained}, 2)


def test_the_default_tiers_retain_nothing() -> None:
    rules = {"build_emission": "default", "crunch": "", "compute_provider": None, "data_provider": None}
    emission = {"crunch": "", **shares((0, WHOLE)), "retained_pct": 1}
    with pytest.raises(verify.LieError, match="retains 1 of the pool"):
        verify.check_emission({"entries": [emission], "meta": {"ranking": [{"model_id": "m1"}]}}, rules)


@pytest.mark.parametrize("error", [OverflowError, RecursionError, KeyError])
def test_evidence_that_cannot_be_read_is_a_lie_and_no_traceback(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pages(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(verify.Api, "evidence", pages)
    assert verify.main(["--url", "http://127.0.0.1:1"]) == 1
    assert "LIE: the evidence is not whole" in capsys.readouterr().err


@pytest.mark.parametrize("value", [True, "1", None])
def test_what_is_no_number_ranks_nobody(value: Any) -> None:
    rules = {"ranking_key": "value", "windows": {}, "min_predictions": 0, "value_field": "value"}
    own = [snapshot("m1", result_summary={"value": value}), snapshot("m2")]
    assert verify.ranked_values(rules, own, verify.moment(END)) == {"m1": None, "m2": 1.0}


def snapshot(model_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"s-{model_id}",
        "cycle_id": "c",
        "model_id": model_id,
        "period_start": START,
        "period_end": "2026-03-01T00:30:00.000000Z",
        "created_at": END,
        "prediction_count": 1,
        "result_summary": {"value": 1.0},
        "meta": {},
        "superseded_by": None,
        **fields,
    }


@pytest.mark.parametrize("models", [["__ensemble_main"], ["m1", "m1"], ["m2"]])
def test_an_ensemble_a_model_twice_and_one_that_had_nothing_scored_are_not_ranked(models: list[str]) -> None:
    rules = {"leaderboard_ranker": "module:own", "ranking_key": "day"}
    counts = [{"m2": 0}.get(model_id, 1) for model_id in models]
    ranking = [
        {"model_id": model_id, "rank": place, "prediction_count": count, "snapshot_count": count}
        for place, (model_id, count) in enumerate(zip(models, counts, strict=True), 1)
    ]
    checkpoint = {"period_start": START, "period_end": END, "meta": {"ranking": ranking}}
    with pytest.raises(verify.LieError, match="the ranking"):
        verify.check_ranking(checkpoint, rules, [snapshot("m1"), snapshot("__ensemble_main")])


def test_a_snapshot_is_of_the_time_of_its_predictions() -> None:
    counted = [{"prediction": {"performed_at": START, "resolvable_at": end}} for end in ("2026-03-01T00:20:00Z", END)]
    verify.check_times(snapshot("m1", period_end=END), counted, "snapshot")
    with pytest.raises(verify.LieError, match="of other times"):
        verify.check_times(snapshot("m1"), counted, "snapshot")


EARLIER, LATER = "2026-02-28T23:59:59.999999Z", "2026-03-01T02:00:00+00:00"


def late(counts_in: str, **fields: Any) -> dict[str, Any]:
    return {"period_end": EARLIER, "meta": {"late": {"counts_in": counts_in}, **fields}}


RESCORED = {"rescore": {"generation": 2, "replaces": "s"}}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"period_end": LATER},
        late(START),
        {"period_end": EARLIER, "meta": RESCORED},
        {**late("2026-02-27T00:00:00Z", **RESCORED), "period_end": "2026-02-20T00:00:00Z"},
    ],
)
def test_when_a_snapshot_counts(fields: dict[str, Any]) -> None:
    verify.check_period(snapshot("m1", **fields), verify.moment(START), "snapshot")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"period_end": EARLIER}, "counts nowhere"),
        (late(LATER), "came when 2026-03-01T00:00:00"),
        ({**late(START), "period_end": START}, "of a time after that"),
    ],
)
def test_a_snapshot_that_would_count_elsewhere_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(verify.LieError, match=named):
        verify.check_period(snapshot("m1", **fields), verify.moment(START), "snapshot")


def test_what_ended_before_the_first_period_counts_in_none() -> None:
    verify.check_period(snapshot("m1", period_end=EARLIER), None, "snapshot")


RULES = {"metrics": ["ic"], "value_field": "value", "ranking_key": "day", "aggregate_snapshot": "default"}


def test_means_of_scores() -> None:
    verify.check_means(
        snapshot("m1", result_summary={"value": 2, "ic": 9.0}), [{"value": 1}, {"value": 3.0}], RULES, ""
    )
    verify.check_means(snapshot("m1", result_summary={"value": None}), [{"value": 1.7e308}] * 2, RULES, "")
    verify.check_means(snapshot("m1", result_summary={}), [{"value": True}, None], RULES, "")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"result_summary": {"value": 1.0, "other": 1.0}}, "value = 1.0: none of its scores has one"),
        ({"result_summary": {"other": 2.0}}, "other = 2.0: the mean of its scores is 1.0"),
        ({"result_summary": {"other": None}}, "other = None: the mean of its scores is 1.0"),
        ({"result_summary": {"other": True}}, "other = True: the mean of its scores is 1.0"),
        ({"result_summary": {}, "meta": {"error": "it failed"}}, "cannot fail as it says, it failed"),
    ],
)
def test_wrong_means_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(verify.LieError, match=named):
        verify.check_means(snapshot("m1", **fields), [{"other": 1.0}], RULES, "snapshot s-m1")


def test_two_commitments_have_no_place_in_common() -> None:
    checked = verify.Verification(api=None)
    checked._commitments = {name: {"id": name, "position": 3} for name in ("c1", "c2")}
    with pytest.raises(verify.LieError, match="commitment c2 is at place 3 of the chain, like another"):
        checked._check_commitment_chain()
