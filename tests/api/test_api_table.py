"""The contract's table of endpoints, row by row: what each answers, in which order, and how it refuses."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from api_cases import NOW, Client, ClientMaker, model, report_app, running, store
from report_rows import ENSEMBLE, NUMBERS, leaderboard_entries, seed_everything, snapshot
from sqlalchemy import Engine, text

from coordinator_node.api.routes import rewards
from coordinator_node.crunch_config import Aggregation, CrunchConfig
from coordinator_node.db.tables import LeaderboardRow

CHART = {"subject", "asset", "horizon", "param", "step"}
WINDOWS = {"score_recent", "score_steady", "score_anchor"}
BACKFILL = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s", "start": "2026-02-01"}

# (path, parameters, fields every row has, field and direction of its order)
LISTS: list[tuple[str, dict[str, Any], set[str], tuple[str, bool] | None]] = [
    ("/reports/leaderboard", {}, {"created_at", "model_id", "score_metrics", "score_ranking", "rank", "model_name",
     "cruncher_name", "username", "status", "ic", *WINDOWS}, None),
    ("/reports/models", {}, {"model_id", "model_name", "cruncher_name", "cruncher_id", "deployment_id"}, None),
    ("/reports/models/global", {}, {"model_id", "score_metrics", "score_ranking", "performed_at", "ic", *WINDOWS,
     *CHART}, ("performed_at", False)),
    ("/reports/models/params", {}, {"model_id", "score_metrics", "score_ranking", "performed_at", "scope_key", "scope",
     *WINDOWS, *CHART}, ("performed_at", False)),
    ("/reports/models/metrics", {}, {"model_id", "performed_at", "prediction_count", "ic", "value", *CHART},
     ("performed_at", False)),
    ("/reports/models/summary", {}, {"model_id", "performed_at", "ic", "value", *CHART}, ("model_id", False)),
    ("/reports/diversity", {}, {"model_id", "diversity_score", "model_correlation", "ensemble_correlation",
     "contribution", "fnc", "ic", "period_end"}, ("diversity_score", True)),
    ("/reports/predictions", {}, {"model_id", "prediction_config_id", "scope_key", "scope", "score_value",
     "score_failed", "score_failed_reason", "scored_at", "performed_at", *CHART}, ("performed_at", False)),
    ("/reports/feeds", {}, {"source", "subject", "kind", "granularity", "record_count", "oldest_ts", "newest_ts",
     "watermark_ts", "watermark_updated_at"}, None),
    ("/reports/feeds/tail", {}, {"source", "subject", "kind", "granularity", "ts_event", "ts_ingested", "values",
     "meta"}, ("ts_event", True)),
    ("/reports/snapshots", {}, {"id", "model_id", "period_start", "period_end", "prediction_count", "result_summary",
     "created_at"}, ("period_end", True)),
    ("/reports/ensemble/history", {}, {"ensemble_name", "model_id", "period_start", "period_end", "prediction_count",
     "value", "ic"}, ("period_end", False)),
    ("/reports/checkpoints", {}, {"id", "period_start", "period_end", "status", "entries", "meta", "created_at",
     "tx_hash", "submitted_at"}, ("period_end", True)),
    ("/reports/checkpoints/c0/prizes", {"total_prize": 100}, {"prizeId", "timestamp", "model", "prize"},
     ("prize", True)),
    ("/reports/checkpoints/rewards", {}, {"checkpoint_id", "period_start", "period_end", "model_id", "model_name",
     "rank", "reward_pct", "prediction_count", "value"}, ("period_end", True)),
    ("/reports/backfill/feeds", {}, {"source", "subject", "kind", "granularity", "record_count"}, None),
    ("/reports/backfill/jobs", {}, {"id", "status", "progress_pct", "cursor_ts", "start_ts", "end_ts"}, None),
]  # fmt: skip
OBJECTS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("/healthz", {}, {"status"}),
    ("/info", {}, {"crunch_id", "crunch_address", "network"}),
    ("/reports/schema", {}, {"leaderboard_columns", "metrics_widgets"}),
    ("/reports/models/m1/diversity", {}, {"model_id", "rank", "diversity_score", "metrics", "guidance",
     "snapshot_period_end"}),
    ("/reports/checkpoints/latest", {}, {"id", "status", "entries", "meta"}),
    ("/reports/checkpoints/c0/payload", {}, {"checkpoint_id", "entries", "meta"}),
    ("/reports/checkpoints/c0/emission", {}, {"crunch", "cruncher_rewards"}),
    ("/reports/checkpoints/c0/emission/cli-format", {}, {"crunch", "crunchEmission", "computeProvider",
     "dataProvider"}),
    ("/reports/checkpoints/latest/prizes", {"total_prize": 100}, {"checkpoint_id", "status", "period_start",
     "period_end", "total_prize", "prizes"}),
    ("/reports/emissions/latest", {}, {"checkpoint_id", "status", "period_start", "period_end", "emission"}),
    ("/reports/backfill/jobs/job", {}, {"id", "status", "progress_pct"}),
]  # fmt: skip
UNKNOWN = [
    "/reports/models/nobody/diversity",
    "/reports/checkpoints/none/payload",
    "/reports/checkpoints/none/emission",
    "/reports/checkpoints/none/emission/cli-format",
    "/reports/checkpoints/none/prizes?total_prize=1",
    "/reports/backfill/jobs/none",
    "/data/backfill/a/b/c/d/none.parquet",
]
REFUSED = [
    "/reports/models/global?start=yesterday",
    "/reports/models/params?start=2026-02-02&end=2026-02-01",
    "/reports/models/metrics?end=1800-01-01",
    "/reports/models/summary?include_ensembles=perhaps",
    "/reports/diversity?limit=0",
    "/reports/diversity?cursor=nonsense",
    "/reports/predictions?limit=100000",
    "/reports/predictions?projectIds=%00",
    "/reports/feeds/tail?limit=-1",
    "/reports/snapshots?since=2026-02-02&until=2026-02-01",
    "/reports/snapshots?cursor=WzFd",
    "/reports/ensemble/history?limit=many",
    "/reports/checkpoints?status=LOST",
    "/reports/checkpoints/rewards?limit=0",
    "/reports/checkpoints/latest/prizes",
    "/reports/checkpoints/c0/prizes?total_prize=-1",
    "/reports/backfill/jobs?status=LOST",
    "/data/backfill/index?source=../etc",
]


@pytest.fixture
def seeded(client: Client, engine: Engine) -> Client:
    seed_everything(engine)
    return client


def test_lists_have_their_fields_and_their_order(seeded: Client) -> None:
    for path, params, fields, order in LISTS:
        rows = seeded.rows(path, **params)
        assert rows, path
        assert all(fields <= set(row) for row in rows), (path, fields - set(rows[0]))
        assert all("score_success" not in row for row in rows), path
        if order:
            name, descending = order
            values = [row[name] for row in rows]
            assert values == sorted(values, reverse=descending), path


def test_times_of_charts_are_naive_and_others_have_their_offset(seeded: Client) -> None:
    for path, params, _, _ in LISTS:
        for row in seeded.rows(path, **params):
            for name, value in row.items():
                if name.endswith(("_at", "_ts", "_start", "_end")) and value is not None:
                    naive = name == "performed_at"
                    assert ("+00:00" in value) is not naive, (path, name, value)


def test_objects_have_their_fields(seeded: Client) -> None:
    for path, params, fields in OBJECTS:
        assert fields <= set(seeded.rows(path, **params)), path


@pytest.mark.parametrize("path", UNKNOWN)
def test_what_there_is_none_of_is_404(seeded: Client, path: str) -> None:
    answer = seeded.request("GET", path)
    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("path", REFUSED)
def test_bad_input_is_422_and_says_where(seeded: Client, path: str) -> None:
    answer = seeded.request("GET", path)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


def test_what_the_present_state_forbids_is_409(seeded: Client) -> None:
    body = {"json": {**BACKFILL, "end": "2026-02-02"}}
    assert seeded.request("POST", "/reports/backfill", **body).status_code == 201
    assert seeded.request("POST", "/reports/backfill", **body).status_code == 409
    paid = {"json": {"status": "PAID"}}
    assert seeded.request("PATCH", "/reports/checkpoints/c0/status", **paid).status_code == 409
    assert seeded.request("POST", "/reports/checkpoints/c1/confirm", json={"tx_hash": "a"}).status_code == 200
    assert seeded.request("POST", "/reports/checkpoints/c1/confirm", json={"tx_hash": "b"}).status_code == 409
    assert seeded.request("POST", "/reports/checkpoints/none/confirm", json={"tx_hash": "a"}).status_code == 404
    assert seeded.request("POST", "/reports/checkpoints/c0/confirm", json={}).status_code == 422


PAGED = [
    ("/reports/diversity", {}),
    ("/reports/predictions", {}),
    ("/reports/feeds/tail", {}),
    ("/reports/snapshots", {}),
    ("/reports/ensemble/history", {}),
    ("/reports/checkpoints", {}),
    ("/reports/checkpoints/rewards", {"model_id": "m1"}),
    ("/reports/backfill/jobs", {}),
    ("/reports/merkle/cycles", {}),
    ("/reports/merkle/commitments", {}),
]


@pytest.mark.parametrize(("path", "params"), PAGED)
@pytest.mark.parametrize("limit", [1, 2])
def test_pages_together_are_the_whole_list(seeded: Client, path: str, params: dict[str, Any], limit: int) -> None:
    # Where the newest are shown oldest first, each page is older than the one before.
    backwards = path in ("/reports/predictions", "/reports/ensemble/history")
    whole = seeded.rows(path, **params)
    pages: list[list[Any]] = []
    answer = seeded.get(path, **params, limit=limit)
    while True:
        assert answer.status_code == 200, answer.text
        assert 0 < len(answer.json()) <= limit
        pages.append(answer.json())
        cursor = answer.headers.get("x-next-cursor")
        if cursor is None:
            break
        address = answer.links["next"]["url"]
        assert parse_qs(urlsplit(address).query)["cursor"] == [cursor]
        answer = seeded.request("GET", address)
    assert "link" not in answer.headers
    assert [row for page in (reversed(pages) if backwards else pages) for row in page] == whole


def test_no_address_that_is_told_holds_a_key(seeded: Client) -> None:
    """No key is set here: what a client sends as one then still is somebody's."""
    answer = seeded.request("GET", "/reports/snapshots?api_key=a&limit=1&api_key=b")
    assert answer.status_code == 200, "which may be given twice, like everywhere"
    address = parse_qs(urlsplit(answer.links["next"]["url"]).query)
    assert set(address) == {"limit", "cursor"}


def test_a_cursor_with_something_between_its_letters_is_refused(seeded: Client) -> None:
    cursor = seeded.get("/reports/snapshots", limit=1).headers["x-next-cursor"]
    for spelled in (f"{cursor[:4]}!{cursor[4:]}", f"{cursor[:4]} {cursor[4:]}", f"{cursor}\n"):
        assert seeded.get("/reports/snapshots", cursor=spelled).status_code == 422, spelled


def test_a_cursor_of_another_list_is_refused(seeded: Client) -> None:
    """Places of several lists look alike: read as one of this list, another's would skip rows without a word."""
    asked = [(path, seeded.get(path, **params, limit=1).headers.get("x-next-cursor")) for path, params in PAGED]
    cursors = {path: cursor for path, cursor in asked if cursor is not None}
    assert len(cursors) >= len(PAGED) - 1
    for of_list, cursor in cursors.items():
        answers = {path: seeded.get(path, **params, cursor=cursor).status_code for path, params in PAGED}
        assert answers == {path: 200 if path == of_list else 422 for path, _ in PAGED}


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/reports/merkle/commitments", [2**63]),
        ("/reports/merkle/commitments", [-1]),
        ("/reports/merkle/cycles", [NOW.isoformat(), 2**63, "x"]),
        ("/reports/snapshots", ["0000-01-01T00:00:00Z", NOW.isoformat(), "x"]),
        ("/reports/snapshots", [NOW.isoformat(), NOW.isoformat(), "\x00"]),
    ],
)
def test_a_cursor_that_somebody_made_is_refused(seeded: Client, path: str, place: list[Any]) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps([path, place]).encode()).decode()
    answer = seeded.get(path, cursor=cursor)
    assert answer.status_code == 422
    assert "X-Next-Cursor" in answer.json()["detail"]


def test_new_rows_do_not_shift_the_next_page(seeded: Client, engine: Engine) -> None:
    first = seeded.get("/reports/snapshots", limit=2)
    before = seeded.request("GET", first.links["next"]["url"]).json()
    store(engine, snapshot(-5, "m3"))
    assert seeded.request("GET", first.links["next"]["url"]).json() == before


def test_a_next_page_does_not_repeat_the_key(client_of: ClientMaker, engine: Engine) -> None:
    seed_everything(engine)
    answer = client_of(API_KEY="secret").get("/reports/snapshots", limit=1, api_key="secret", model_id="m1")
    assert "secret" not in answer.headers["link"]
    assert "model_id=m1" in answer.headers["link"]


def test_diversity(seeded: Client, engine: Engine) -> None:
    store(engine, snapshot(0, "m3", result_summary_jsonb={**NUMBERS, "model_correlation": -0.9}))
    rows = seeded.rows("/reports/diversity")
    assert [(row["model_id"], row["diversity_score"]) for row in rows] == [
        ("m1", 0.7),
        ("m2", 0.7),
        ("m3", pytest.approx(0.1)),
    ]
    assert rows[0] == {
        "model_id": "m1",
        "diversity_score": 0.7,
        "model_correlation": 0.3,
        "ensemble_correlation": 0.4,
        "contribution": 0.01,
        "fnc": 0.02,
        "ic": 0.1,
        "period_end": "2026-03-01T12:00:00+00:00",
    }
    own = seeded.rows("/reports/models/m1/diversity")
    assert (own["rank"], own["diversity_score"], own["metrics"]["fnc"]) == (1, 0.7, 0.02)
    assert own["snapshot_period_end"] == "2026-03-01T12:00:00+00:00"
    assert any("0.30" in sentence for sentence in own["guidance"])


def test_unknown_diversity_is_null_and_last_and_not_that_of_a_copy(seeded: Client, engine: Engine) -> None:
    store(engine, model("m0"), model("copy"), model("text"))
    store(engine, snapshot(0, "copy", result_summary_jsonb={"model_correlation": -1.0}))
    store(engine, snapshot(0, "m0", result_summary_jsonb={"ic": 0.2}))
    store(engine, snapshot(0, "text", result_summary_jsonb={"model_correlation": "high"}))
    expected = [("m1", 0.7), ("m2", 0.7), ("copy", 0.0), ("m0", None), ("text", None)]
    rows, params = [], {"limit": "1"}
    while params:
        page = seeded.get("/reports/diversity", **params)
        rows += page.json()
        cursor = page.headers.get("X-Next-Cursor")
        params = {"limit": "1", "cursor": cursor} if cursor else {}
    assert [(row["model_id"], row["diversity_score"]) for row in rows] == expected
    alone = [seeded.rows(f"/reports/models/{row['model_id']}/diversity") for row in rows]
    assert [(row["model_id"], row["diversity_score"]) for row in alone] == expected


def test_a_model_without_snapshot_has_no_diversity_yet(seeded: Client) -> None:
    own = seeded.rows("/reports/models/m3/diversity")
    assert (own["rank"], own["diversity_score"], own["snapshot_period_end"]) == (None, None, None)
    assert set(own["metrics"].values()) == {None}
    assert own["guidance"]


def test_rewards_are_percentages_by_rank(seeded: Client) -> None:
    rows = seeded.rows("/reports/checkpoints/rewards", limit=1)
    assert [(row["checkpoint_id"], row["model_id"], row["rank"], row["reward_pct"]) for row in rows] == [
        ("c0", "m1", 1, 70.0),
        ("c0", "m2", 2, 30.0),
    ]
    assert (rows[0]["prediction_count"], rows[0]["value"], rows[0]["ic"]) == (9, 0.5, None)
    assert [row["checkpoint_id"] for row in seeded.rows("/reports/checkpoints/rewards", model_id="m2")] == [
        "c0", "c1", "c2",
    ]  # fmt: skip


def test_a_page_of_rewards_holds_whole_checkpoints_and_makes_no_more_than_fit(
    seeded: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    reward_shares = rewards.reward_shares

    def noting(checkpoint: dict[str, Any]) -> dict[int, float] | None:
        made.append(checkpoint["id"])
        return reward_shares(checkpoint)

    monkeypatch.setattr(rewards, "reward_shares", noting)
    for most, pages in ((5, [4, 2]), (3, [2, 2, 2]), (1, [2, 2, 2]), (6, [6])):
        monkeypatch.setattr(rewards, "MOST_ROWS", most)
        answer = seeded.get("/reports/checkpoints/rewards")
        shown = [answer.json()]
        while "next" in answer.links:
            answer = seeded.request("GET", answer.links["next"]["url"])
            shown.append(answer.json())
        assert [len(page) for page in shown] == pages
        assert [row["checkpoint_id"] for page in shown for row in page] == ["c0", "c0", "c1", "c1", "c2", "c2"]
    made.clear()
    monkeypatch.setattr(rewards, "MOST_ROWS", 2)
    seeded.rows("/reports/checkpoints/rewards")
    assert made == ["c0", "c1"], "one more than what fits is looked at, and not all that were asked for"


def test_ensemble_history_is_the_newest_oldest_first(seeded: Client) -> None:
    rows = seeded.rows("/reports/ensemble/history", ensemble_name="main", limit=2)
    assert [row["period_end"][11:16] for row in rows] == ["11:59", "12:00"]
    assert {(row["ensemble_name"], row["model_id"]) for row in rows} == {("main", ENSEMBLE)}
    assert seeded.rows("/reports/ensemble/history", ensemble_name="other") == []


CONFIGS = [
    CrunchConfig(),
    CrunchConfig(aggregation=Aggregation(windows={}, ranking_key="ic"), metrics=["ic", "hit_rate"]),
    CrunchConfig(metrics=[]),
    CrunchConfig.model_validate(
        {
            "aggregation": {"windows": {"last_hour": {"hours": 1}}, "ranking_key": "value"},
            "metrics": ["fnc", "my_own", "rank"],
        }
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_name_of_the_schema_is_in_the_rows(client_of: ClientMaker, engine: Engine, config: CrunchConfig) -> None:
    seed_everything(engine)
    client = client_of(config)
    layout = client.rows("/reports/schema")
    board = client.rows("/reports/leaderboard")
    columns = layout["leaderboard_columns"]
    assert [column["type"] for column in columns][:2] == ["MODEL", "USERNAME"]
    assert {column["type"] for column in columns[2:]} == {"VALUE"}
    assert config.aggregation.ranking_key in {column["property"] for column in columns}
    assert all(column["property"] in row for column in columns for row in board)
    widgets = layout["metrics_widgets"]
    assert len({widget["id"] for widget in widgets}) == len(widgets)
    endpoints = {widget["id"]: widget["endpointUrl"] for widget in widgets}
    expected = {1: "/reports/models/global", 2: "/reports/predictions", 3: "/reports/models/params"}
    assert all(endpoints.get(number, endpoint) == endpoint for number, endpoint in expected.items())
    for widget in widgets:
        chart = widget["nativeConfiguration"]
        names = {chart["xAxis"]["name"], *(series["name"] for series in chart["yAxis"]["series"])}
        names |= {filtered["property"] for filtered in chart["filterConfig"] or ()}
        names |= set((chart["alertConfig"] or {}).values()) | {chart["groupByProperty"]}
        rows = client.rows(widget["endpointUrl"])
        assert rows
        assert all(names <= set(row) for row in rows), (widget["endpointUrl"], names - set(rows[0]))
    assert client.rows("/reports/schema/leaderboard-columns") == columns
    assert client.rows("/reports/schema/metrics-widgets") == widgets


def test_the_leaderboard_is_sent_once_a_version(seeded: Client, engine: Engine) -> None:
    first = seeded.get("/reports/leaderboard")
    assert first.headers["cache-control"] == "no-cache"
    tag = {"If-None-Match": first.headers["etag"]}
    again = seeded.request("GET", "/reports/leaderboard", headers=tag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert seeded.request("GET", "/reports/leaderboard?include_ensembles=true", headers=tag).status_code == 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE models SET presence = 'AWAY' WHERE id = 'm1'"))
    away = seeded.request("GET", "/reports/leaderboard", headers=tag)
    assert (away.status_code, away.json()[0]["status"]) == (200, "inactive")
    store(engine, LeaderboardRow(created_at=NOW + timedelta(seconds=1), entries_jsonb=leaderboard_entries()[:1]))
    assert [row["model_id"] for row in seeded.rows("/reports/leaderboard")] == ["m1"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE leaderboards SET entries_jsonb = '[]'"))
    assert seeded.rows("/reports/leaderboard") == []


# What changes once a cycle, or more seldom still.
SELDOM = [
    "/reports/schema",
    "/reports/schema/leaderboard-columns",
    "/reports/schema/metrics-widgets",
    "/reports/leaderboard",
    "/reports/models",
    "/reports/models/global",
    "/reports/models/params",
    "/reports/models/metrics",
    "/reports/models/summary",
    "/reports/models/m1/diversity",
    "/reports/diversity",
    "/reports/ensemble/history",
    "/reports/checkpoints",
    "/reports/checkpoints/latest",
    "/reports/checkpoints/latest/prizes?total_prize=100",
    "/reports/checkpoints/rewards?limit=1",
    "/reports/checkpoints/c0/payload",
    "/reports/emissions/latest",
    "/reports/merkle/cycles",
]


@pytest.mark.parametrize("path", SELDOM)
def test_what_changes_seldom_is_sent_to_nobody_twice(seeded: Client, engine: Engine, path: str) -> None:
    first = seeded.request("GET", path)
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
    etag = first.headers["etag"]
    for held in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        again = seeded.request("GET", path, headers={"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), held
        assert again.headers.get("link") == first.headers.get("link")
    other = seeded.request("GET", path, headers={"If-None-Match": 'W/"other"'})
    assert (other.status_code, other.content, other.headers["etag"]) == (200, first.content, etag)


def test_the_newest_checkpoint_is_told_as_it_is_now(seeded: Client, engine: Engine) -> None:
    paths = ("/reports/checkpoints/latest", "/reports/emissions/latest")
    tags = {path: {"If-None-Match": seeded.get(path).headers["etag"]} for path in paths}
    newest = seeded.rows(paths[0])["id"]
    moved = seeded.request("POST", f"/reports/checkpoints/{newest}/confirm", json={"tx_hash": "t"})
    assert moved.status_code == 200
    for path in paths:
        answer = seeded.request("GET", path, headers=tags[path])
        assert (answer.status_code, answer.json()["status"]) == (200, "SUBMITTED")
    with engine.begin() as connection:
        connection.execute(text("UPDATE checkpoints SET entries_jsonb = '[]'"))
    assert seeded.rows(paths[0])["entries"] == []
    assert seeded.get(paths[1]).status_code == 409


def test_long_answers_are_compressed_for_whoever_takes_it(engine: Engine) -> None:
    seed_everything(engine)
    with running(report_app(engine)) as server:
        for path in ("/reports/leaderboard", "/reports/snapshots"):
            _, plain, body = server.request("GET", path)
            _, headers, packed = server.request("GET", path, {"Accept-Encoding": "gzip"})
            assert "content-encoding" not in plain
            assert headers["content-encoding"] == "gzip"
            assert gzip.decompress(packed) == body
            assert len(body) > 1024
        _, headers, _ = server.request("GET", "/info", {"Accept-Encoding": "gzip"})
        assert "content-encoding" not in headers


def test_a_browser_may_read_where_the_next_page_is(seeded: Client) -> None:
    answer = seeded.request("GET", "/reports/snapshots?limit=1", headers={"Origin": "http://web"})
    assert "X-Next-Cursor" in answer.headers["access-control-expose-headers"]
