"""What the reading endpoints answer: shapes, orders, bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_cases import NOW, Client, ClientMaker, checkpoint, model, prediction, score, stage, store
from plans import Plans
from sqlalchemy import Engine

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.reports import feeds
from coordinator_node.db.tables import FeedIngestionStateRow, FeedRecordRow, LeaderboardRow, SnapshotRow

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
ENSEMBLE = "__ensemble_all__"


def entry(model_id: str, rank: int | None, metrics: dict[str, Any], value: float | None = None) -> dict[str, Any]:
    return {
        "model_id": model_id,
        "rank": rank,
        "model_name": f"name of {model_id}",
        "cruncher_name": f"player of {model_id}",
        "score": {"metrics": metrics, "ranking": {"key": "score_recent", "value": value, "direction": "desc"}},
    }


def test_info_tells_the_competition_and_the_environment_overrides_the_config(client_of: ClientMaker) -> None:
    config = CrunchConfig(crunch_pubkey="from-config")
    assert client_of(config, CRUNCH_ID="btc").rows("/info") == {
        "crunch_id": "btc",
        "crunch_address": "from-config",
        "network": "devnet",
    }
    client = client_of(config, CRUNCH_PUBKEY="from-environment", NETWORK="mainnet-beta")
    assert client.rows("/info")["crunch_address"] == "from-environment"
    assert client.rows("/info")["network"] == "mainnet-beta"


def test_leaderboard_is_the_newest_by_rank(client: Client, engine: Engine) -> None:
    store(
        engine,
        model("m1", presence="PRESENT"),
        model("m2", presence="AWAY"),
        LeaderboardRow(created_at=NOW - DAY, entries_jsonb=[entry("old", 1, {})]),
        LeaderboardRow(
            created_at=NOW,
            entries_jsonb=[
                entry("m3", None, {"score_recent": None}),
                entry("m2", 2, {"score_recent": 0.1, "ic": None, "pnl": 3}, 0.1),
                entry("m1", 1, {"score_recent": 0.2, "rank": 77, "score_success": True, "ic": 0.5}, 0.2),
                entry(ENSEMBLE, None, {"score_recent": 0.9}, 0.9),
            ],
        ),
    )
    rows = client.rows("/reports/leaderboard")
    assert [row["model_id"] for row in rows] == ["m1", "m2", "m3"]
    assert rows[0] == {
        "created_at": "2026-03-01T12:00:00+00:00",
        "model_id": "m1",
        "rank": 1,
        "model_name": "name of m1",
        "cruncher_name": "player of m1",
        "username": "player of m1",
        "status": "active",
        "score_metrics": {"score_recent": 0.2, "rank": 77, "score_success": True, "ic": 0.5},
        "score_ranking": {"key": "score_recent", "value": 0.2, "direction": "desc"},
        "score_recent": 0.2,
        "score_steady": None,
        "score_anchor": None,
        **dict.fromkeys(("ic_sharpe", "hit_rate", "max_drawdown", "model_correlation")),
        "ic": 0.5,
    }
    assert (rows[1]["status"], rows[1]["ic"], rows[1]["pnl"]) == ("inactive", None, 3)
    assert (rows[2]["rank"], rows[2]["score_recent"], rows[2]["status"]) == (None, None, "inactive")

    shown = client.rows("/reports/leaderboard", include_ensembles="true")
    assert [row["model_id"] for row in shown] == ["m1", "m2", "m3", ENSEMBLE]
    assert shown[-1]["status"] == "active"


def test_a_number_that_no_double_holds_is_null(client: Client, engine: Engine) -> None:
    """Postgres keeps 1e400 in JSON, and Python reads a fraction like it as infinite."""
    store(engine, LeaderboardRow(created_at=NOW, entries_jsonb=[entry("m1", 1, {"score_recent": 0})]))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE leaderboards SET entries_jsonb = replace(entries_jsonb::text, '\"score_recent\": 0',"
            " '\"score_recent\": ' || repeat('9', 400) || '.5')::jsonb"
        )
    answer = client.get("/reports/leaderboard")
    assert answer.json()[0]["score_recent"] is None
    assert answer.json()[0]["score_metrics"] == {"score_recent": None}


def test_entries_of_an_older_leaderboard_may_lack_their_score(client: Client, engine: Engine) -> None:
    store(engine, LeaderboardRow(created_at=NOW, entries_jsonb=[{"model_id": "m1", "rank": 1}, "odd"]))
    (row,) = client.rows("/reports/leaderboard")
    assert (row["score_metrics"], row["score_ranking"], row["score_recent"]) == ({}, {}, None)


def test_odd_values_of_one_entry_do_not_take_the_others_away(client: Client, engine: Engine) -> None:
    """An operator's code may save a leaderboard of any shape."""
    odd = {**entry("m2", 2, {}), "rank": "second", "model_name": 5, "cruncher_name": ["b"]}
    store(engine, model("m1"), LeaderboardRow(created_at=NOW, entries_jsonb=[odd, entry("m1", 1, {})]))
    rows = client.rows("/reports/leaderboard")
    assert [(row["model_id"], row["rank"]) for row in rows] == [("m1", 1), ("m2", None)]
    assert (rows[1]["model_name"], rows[1]["cruncher_name"], rows[1]["username"]) == (None, None, None)
    store(engine, LeaderboardRow(created_at=NOW + DAY, entries_jsonb={"m1": 1}))
    assert client.rows("/reports/leaderboard") == []
    assert client.rows("/reports/models/m1/diversity")["rank"] is None


def test_models_are_listed_by_name_without_ensembles(client: Client, engine: Engine) -> None:
    store(engine, model("m1", name="zebra"), model("m2", name="ant"), model(ENSEMBLE, name="all"))
    assert client.rows("/reports/models") == [
        {
            "model_id": model_id,
            "model_name": name,
            "cruncher_name": f"player name of {model_id}",
            "cruncher_id": f"player of {model_id}",
            "deployment_id": f"deployment of {model_id}",
        }
        for model_id, name in (("m2", "ant"), ("m1", "zebra"))
    ]


@pytest.mark.parametrize(
    "path",
    ["leaderboard", "models", "predictions", "feeds", "feeds/tail", "snapshots", "checkpoints"],
)
def test_lists_are_empty_before_anything_happened(client: Client, path: str) -> None:
    assert client.rows(f"/reports/{path}") == []


def test_a_prediction_row(client: Client, engine: Engine) -> None:
    stage(engine, "m1")
    done = prediction("m1", NOW - 60 * SECOND, status="SCORED")
    store(engine, done, score(done, result_jsonb={"value": 0.25}, scored_at=NOW))
    assert client.rows("/reports/predictions") == [
        {
            "model_id": "m1",
            "prediction_config_id": "BTC-60-schedule",
            "scope_key": "BTC-60",
            "scope": {"subject": "BTC", "step_seconds": 15},
            "score_value": 0.25,
            "score_failed": False,
            "score_failed_reason": None,
            "scored_at": "2026-03-01T12:00:00+00:00",
            "performed_at": "2026-03-01T11:59:00",
            "subject": "BTC",
            "asset": "BTC",
            "horizon": 60,
            "param": "BTC-60",
            "step": 15,
        }
    ]


def test_predictions_say_how_they_failed(client: Client, engine: Engine) -> None:
    stage(engine, "m1")
    kinds = [
        ("pending", {"status": "PENDING"}, None),
        ("failed", {"status": "FAILED", "failed_reason": "timeout after 1 s"}, None),
        ("failed without a word", {"status": "FAILED"}, None),
        ("absent", {"status": "ABSENT"}, None),
        ("score failed", {"status": "FAILED"}, {"success": False, "failed_reason": "raised", "result_jsonb": {}}),
        ("failed with a value", {"status": "SCORED"}, {"success": False, "result_jsonb": {"value": 0.0}}),
        ("older row", {"status": "SCORED"}, {"success": None, "generation": None, "result_jsonb": {"value": 1}}),
        ("no number", {"status": "SCORED"}, {"result_jsonb": {"value": "high"}}),
        ("no result", {"status": "SCORED"}, {"result_jsonb": None}),
        ("other scope", {"status": "PENDING", "scope_jsonb": {"subject": "ETH"}, "horizon": 1.5 * SECOND}, None),
        ("no scope", {"status": "PENDING", "scope_jsonb": None}, None),
    ]
    for age, (_, values, scored) in enumerate(kinds):
        row = prediction("m1", NOW - DAY + age * SECOND, **values)
        store(engine, row, *([score(row, **scored)] if scored else []))
    rows = client.rows("/reports/predictions")
    told = [(row["score_value"], row["score_failed"], row["score_failed_reason"]) for row in rows]
    assert told == [
        (None, False, None),
        (None, True, "timeout after 1 s"),
        (None, True, "failed without a reason"),
        (None, True, "the model was absent"),
        (None, True, "raised"),
        (None, True, "failed without a reason"),
        (1.0, False, None),
        (None, False, None),
        (None, False, None),
        (None, False, None),
        (None, False, None),
    ]
    assert (rows[9]["subject"], rows[9]["step"], rows[9]["horizon"]) == ("ETH", 15, 1.5)
    assert (rows[10]["scope"], rows[10]["subject"], rows[10]["step"]) == (None, None, None)
    assert all("score_success" not in row for row in rows)


def test_the_newest_generation_of_a_score_and_the_configured_field_count(
    client_of: ClientMaker, engine: Engine
) -> None:
    stage(engine, "m1")
    row = prediction("m1", NOW - DAY, status="SCORED")
    store(
        engine,
        row,
        score(row, generation=None, result_jsonb={"value": 1}, scored_at=NOW),
        score(row, generation=2, result_jsonb={"value": 2, "pnl": 20}, scored_at=NOW - SECOND),
        score(row, generation=1, result_jsonb={"value": 3, "pnl": 30}, scored_at=NOW),
    )
    by_pnl = CrunchConfig.model_validate({"aggregation": {"value_field": "pnl"}})
    assert client_of().rows("/reports/predictions")[0]["score_value"] == 2
    assert client_of(by_pnl).rows("/reports/predictions")[0]["score_value"] == 20


def test_predictions_are_chosen_by_model_and_time(client: Client, engine: Engine) -> None:
    stage(engine, "m1", "m2", "m3", ENSEMBLE)
    for model_id in ("m1", "m2", "m3", ENSEMBLE):
        for days in (0, 1, 6, 8):
            store(engine, prediction(model_id, NOW - days * DAY))

    def found(**params: Any) -> list[tuple[str, str]]:
        return [(row["model_id"], row["performed_at"][:10]) for row in client.rows("/reports/predictions", **params)]

    assert found() == [(m, day) for day in ("2026-02-23", "2026-02-28", "2026-03-01") for m in ("m1", "m2", "m3")]
    assert {m for m, _ in found(projectIds="m1,m2")} == {"m1", "m2"}
    assert {m for m, _ in found(projectIds=["m1", "m2, m3", "m1"])} == {"m1", "m2", "m3"}
    assert {m for m, _ in found(projectIds=ENSEMBLE)} == {ENSEMBLE}
    assert {m for m, _ in found(projectIds="")} == {"m1", "m2", "m3"}
    assert found(projectIds="nobody") == []
    assert found(limit=2) == [("m2", "2026-03-01"), ("m3", "2026-03-01")]
    week_before = {"start": "2026-02-20T12:00:00", "end": "2026-02-22T12:00:00", "projectIds": "m1"}
    assert found(**week_before) == [("m1", "2026-02-21")]
    assert found(start="2026-02-28T13:00:00+01:00", end="2026-02-28T12:00:00Z", projectIds="m1") == [
        ("m1", "2026-02-28")
    ]
    assert found(end="2026-02-22T12:00:00", projectIds="m1") == [("m1", "2026-02-21")]


def test_an_offset_whose_plus_was_not_escaped_is_understood(client: Client, engine: Engine) -> None:
    stage(engine, "m1")
    store(engine, prediction("m1", NOW))
    answer = client.request("GET", "/reports/predictions?start=2026-03-01T12:00:00+00:00&end=2026-03-01T12:00:00+00:00")
    assert len(answer.json()) == 1


def feed(subject: str, at: datetime, **values: Any) -> FeedRecordRow:
    return FeedRecordRow(
        **{
            "source": "sim",
            "subject": subject,
            "kind": "tick",
            "granularity": "1s",
            "ts_event": at,
            "ts_ingested": at + SECOND,
            "values_jsonb": {"price": 1.5},
            **values,
        }
    )


def test_feeds_with_and_without_records_or_watermark(client: Client, engine: Engine) -> None:
    scope = {"source": "sim", "kind": "tick", "granularity": "1s"}
    store(
        engine,
        *(feed("ETH", NOW - age * SECOND) for age in range(5)),
        feed("ETH", NOW, source="other"),
        FeedIngestionStateRow(**scope, subject="ETH", last_event_ts=NOW - SECOND, updated_at=NOW),
        FeedIngestionStateRow(**scope, subject="BTC", last_event_ts=None, updated_at=NOW),
    )
    rows = client.rows("/reports/feeds")
    assert [(row["source"], row["subject"]) for row in rows] == [("other", "ETH"), ("sim", "BTC"), ("sim", "ETH")]
    assert rows[2] == {
        "source": "sim",
        "subject": "ETH",
        "kind": "tick",
        "granularity": "1s",
        "record_count": 5,
        "oldest_ts": "2026-03-01T11:59:56+00:00",
        "newest_ts": "2026-03-01T12:00:00+00:00",
        "watermark_ts": "2026-03-01T11:59:59+00:00",
        "watermark_updated_at": "2026-03-01T12:00:00+00:00",
    }
    assert (rows[0]["record_count"], rows[0]["watermark_ts"], rows[0]["watermark_updated_at"]) == (1, None, None)
    assert (rows[1]["record_count"], rows[1]["oldest_ts"], rows[1]["newest_ts"]) == (0, None, None)


def test_a_long_feed_is_counted_at_its_new_end_only(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine, *(feed("BTC", NOW - age * SECOND) for age in range(101)))
    store(engine, *(feed("BTC", NOW - age * SECOND) for age in range(150, 1000)))
    store(engine, *(feed("ETH", NOW - age * SECOND) for age in range(11)))

    def counts(counted: int, least: int) -> list[int]:
        monkeypatch.setattr(feeds, "COUNTED", counted)
        monkeypatch.setattr(feeds, "LEAST_COUNTED", least)
        return [row["record_count"] for row in client.rows("/reports/feeds")]

    assert counts(100_000, 1000) == [951, 11]
    assert counts(22, 1) == [1000, 11], "by the spacing of the newest 11 of each"
    assert counts(22, 20) == [1000, 11]
    assert counts(2, 951) == [951, 11]


def test_feeds_together_cost_no_more_than_one(client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "COUNTED", 1000)
    monkeypatch.setattr(feeds, "LEAST_COUNTED", 10)
    store(engine, *(feed(f"S{n}", NOW - age * SECOND) for n in range(10) for age in range(300)))
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    with Plans(engine).recorded() as found:
        assert [row["record_count"] for row in client.rows("/reports/feeds")] == [300] * 10
    assert max(explained.rows for explained in found) <= 1000 + 4 * 10


def test_tail_gives_the_newest_records_of_the_feeds_that_match(client: Client, engine: Engine) -> None:
    store(
        engine,
        *(feed("BTC", NOW - age * SECOND, meta_jsonb={"age": age}) for age in range(30)),
        *(feed("ETH", NOW - age * 60 * SECOND, granularity="1m", values_jsonb=None) for age in range(3)),
    )
    rows = client.rows("/reports/feeds/tail", subject="BTC", limit=2)
    assert rows == [
        {
            "source": "sim",
            "subject": "BTC",
            "kind": "tick",
            "granularity": "1s",
            "ts_event": f"2026-03-01T{time}+00:00",
            "ts_ingested": f"2026-03-01T{ingested}+00:00",
            "values": {"price": 1.5},
            "meta": {"age": age},
        }
        for age, time, ingested in ((0, "12:00:00", "12:00:01"), (1, "11:59:59", "12:00:00"))
    ]
    everything = client.rows("/reports/feeds/tail")
    assert len(everything) == 20
    assert [row["ts_event"] for row in everything] == sorted((row["ts_event"] for row in everything), reverse=True)
    assert [row["values"] for row in client.rows("/reports/feeds/tail", granularity="1m")] == [{}, {}, {}]
    assert client.rows("/reports/feeds/tail", source="sim", subject="DOGE") == []


def snapshot(model_id: str, days_ago: int, **values: Any) -> SnapshotRow:
    end = NOW - days_ago * DAY
    return SnapshotRow(
        **{
            "id": f"{model_id}-{days_ago}",
            "model_id": model_id,
            "period_start": end - DAY,
            "period_end": end,
            "prediction_count": 7,
            "result_summary_jsonb": {"value": 0.5, "ic": None},
            "created_at": end,
            **values,
        }
    )


def test_snapshots_newest_first(client: Client, engine: Engine) -> None:
    store(engine, model("m1"), model("m2"), model(ENSEMBLE))
    store(engine, *(snapshot("m1", days) for days in range(4)), snapshot("m2", 2), snapshot(ENSEMBLE, 0))

    def ids(**params: Any) -> list[str]:
        return [row["id"] for row in client.rows("/reports/snapshots", **params)]

    assert ids() == ["m1-0", "m1-1", "m2-2", "m1-2", "m1-3"]
    assert ids(limit=2) == ["m1-0", "m1-1"]
    assert ids(model_id="m2") == ["m2-2"]
    assert ids(model_id=ENSEMBLE) == [f"{ENSEMBLE}-0"]
    assert ids(since="2026-02-26T12:00:00", until="2026-02-27T12:00:00Z") == ["m2-2", "m1-2", "m1-3"]
    assert client.rows("/reports/snapshots", limit=1) == [
        {
            "id": "m1-0",
            "model_id": "m1",
            "period_start": "2026-02-28T12:00:00+00:00",
            "period_end": "2026-03-01T12:00:00+00:00",
            "prediction_count": 7,
            "result_summary": {"value": 0.5, "ic": None},
            "created_at": "2026-03-01T12:00:00+00:00",
        }
    ]


NO_TIME = ("2026-13-01", "yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31", "99999-01-01", "1e300", "\x00", "")
BAD: list[tuple[str, dict[str, Any]]] = [
    *(("predictions", {end: time}) for end in ("start", "end") for time in NO_TIME),
    *(("snapshots", {end: time}) for end in ("since", "until") for time in NO_TIME),
    *((path, {"limit": limit}) for path in ("predictions", "snapshots", "checkpoints", "feeds/tail")
      for limit in (0, -1, 1001, "many", 10**30, "1.5", "\x00")),
    ("predictions", {"start": "2026-03-01", "end": "2026-02-01"}),
    ("snapshots", {"since": "2026-03-01", "until": "2026-02-01"}),
    ("predictions", {"projectIds": ["m1", "a\x00b"]}),
    ("snapshots", {"model_id": "\x00"}),
    ("checkpoints", {"status": "DONE"}),
    ("leaderboard", {"include_ensembles": "perhaps"}),
    *(("feeds/tail", {name: "\x00"}) for name in ("source", "subject", "kind", "granularity")),
    ("checkpoints/%00/payload", {}),
    ("checkpoints/c1/prizes", {}),
    ("checkpoints/latest/prizes", {"total_prize": "-1"}),
    ("checkpoints/latest/prizes", {"total_prize": "1.5"}),
    ("checkpoints/latest/prizes", {"total_prize": "9" * 30}),
]  # fmt: skip


def test_bad_input_is_422_and_says_what(client: Client) -> None:
    for path, params in BAD:
        answer = client.get(f"/reports/{path}", **params)
        assert answer.status_code == 422, (path, params, answer.text)
        detail = answer.json()["detail"]
        assert isinstance(detail, str) or all(set(fault) == {"loc", "msg", "type"} for fault in detail)


def test_odd_but_harmless_input_is_answered(client: Client) -> None:
    for query in ("projectIds=%FF%FE", "projectIds=" + "m," * 3000, "projectIds=😀", "unknown=%00", "projectIds=%25"):
        answer = client.request("GET", f"/reports/predictions?{query}")
        assert answer.status_code == 200, query


def test_unknown_paths_and_methods_have_a_detail(client: Client) -> None:
    missing = client.get("/reports/nothing")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
    wrong = client.request("DELETE", "/reports/leaderboard")
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


def test_the_openapi_document_is_made(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    document = client.rows("/openapi.json")
    assert {"/healthz", "/reports/predictions", "/reports/checkpoints/{checkpoint_id}/confirm"} <= set(
        document["paths"]
    )


def test_times_have_an_offset_except_on_charts(client: Client, engine: Engine) -> None:
    stage(engine, "m1")
    store(engine, checkpoint("c1"), prediction("m1", NOW))
    assert datetime.fromisoformat(client.rows("/reports/checkpoints/latest")["period_end"]).tzinfo == UTC
    assert datetime.fromisoformat(client.rows("/reports/predictions")[0]["performed_at"]).tzinfo is None
