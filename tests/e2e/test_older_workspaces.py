"""Workspaces as operators of 0.1.84 wrote them (tests/workspaces), run whole and unchanged.

They know nothing of the engine but its public surface, and use as much of that as they can.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from workspace_stack import INTERRUPT, TERMINATE, copied, run, settings_of, up, workers

sys.path.insert(0, str(Path(__file__).parents[1] / "db"))

from predecessor_workspace import KEPT, OLD_SECONDS, fill_as_0_1_84

from coordinator_node.entities.emission import FRAC_64_MULTIPLIER
from coordinator_node.entities.times import utc_now

MODELS = {"fader", "follower", "sleeper"}
METRICS = {"ic", "hit_rate", "mean_return", "turnover", "conviction", "mean_squared_error", "crowd_size"}

# The harness that the challenge brings, and what a cruncher of today does with the config of that time.
PLAY = """
import sys
import pandas
from config.crunch_config import CrunchConfig
from coordinator_node.backtest import BacktestRunner
from price_moves.backtest import BacktestRunner as OlderRunner
from price_moves.examples.follower import Follower
url, cache, start, end = sys.argv[1:]
days = pandas.Timestamp(start), pandas.Timestamp(end)
for name, value in OlderRunner(model=Follower()).run(*days, url=url, cache=f"{cache}/older").metrics.items():
    print(f"older {name}: {value:+.6f}")
runner = BacktestRunner(model=Follower(), config=CrunchConfig(), coordinator_url=url, data=cache, subjects=["BTC"])
for name, value in runner.run(start, end).metrics.items():
    print(f"today {name}: {value:+.6f}")
"""


def ranked(rows: list[dict[str, Any]]) -> set[str]:
    return {row["model_id"] for row in rows if row["rank"]}


def metrics_of(printed: str, whose: str) -> dict[str, float]:
    lines = (line.removeprefix(f"{whose} ").split(": ") for line in printed.splitlines() if line.startswith(whose))
    return {name: float(value) for name, value in lines}


def test_a_workspace_with_callables_of_every_kind_repositories_and_a_backtest_of_its_own() -> None:
    with copied("price-moves") as folder:
        node, challenge = folder / "node", folder / "challenge"
        with up(node, [challenge]) as stack:
            board = stack.until("/reports/leaderboard", lambda rows: ranked(rows) >= MODELS)
            assert board[0].keys() >= METRICS | {"score_recent", "score_steady"}
            job = stack.post("/reports/backfill", backfill(now := utc_now()))
            own = {path: stack.get(f"/custom/tables/{path}") for path in ("about", "schedules", "inputs", "feeds")}
            assert own["about"]["scopes"] == [row["scope_key"] for row in own["schedules"]] == ["BTC-2", "ETH-3"]
            assert [row["every"] for row in own["schedules"]] == [1, 2]
            assert {"BTC", "ETH"} <= {row["subject"] for row in own["feeds"]["tail"]}
            assert own["feeds"]["range"] == 5
            of_btc = own["inputs"][-1]["subjects"]["BTC"]
            assert of_btc["last_price"] == of_btc["candles_1m"][-1]["close"]

            house = stack.post("/custom/benchmark", {"expected_return": 0.1, "score": 3.5})
            assert house["records"] == 1
            board = stack.until("/reports/leaderboard", lambda rows: ranked(rows) == {*MODELS, "house"})
            assert (board[0]["model_id"], board[0]["score_recent"]) == ("house", 3.5)
            assert stack.get("/reports/podium")[0] == "house"
            latest = stack.get("/custom/tables/leaderboard")
            assert latest["top"][0] == "house"
            assert latest["metrics"]["fader"]["conviction"] == pytest.approx(0.6)
            assert stack.get("/custom/tables/snapshots?model_id=fader")[-1]["squared_error"] >= 0
            assert stack.get("/custom/tables/models/fader")["meta"]["wallet"] == "w1"
            fader = stack.get("/custom/tables/scored/fader")
            assert {row["status"] for row in fader} == {"SCORED"}
            assert all(row["said"]["confidence"] == 0.6 for row in fader)
            assert {"actual_return", "squared_error"} <= stack.get("/custom/tables/scores?model_id=fader")[0].keys()
            assert stack.get("/custom/tables/predictions?model_id=follower&prefix=BTC&limit=3")[0]["inference_output"][
                "note"
            ]

            for name in ("main", "sure"):
                said = stack.until(f"/custom/tables/ensembles/{name}", lambda rows: rows)
                assert said[-1].keys() == {"at", "scope_key", "confidence", "expected_return"}
            stack.until("/reports/ensemble/history?ensemble_name=main", lambda rows: rows)
            assert stack.get("/custom/tables/models")[0].keys() >= {"id", "player", "wallet", "ensemble"}
            assert "__ensemble_resting__" not in {row["id"] for row in stack.get("/custom/tables/models")}

            paid = stack.until("/custom/tables/checkpoints", lambda rows: any(row["paid"] for row in rows))
            whole = next(row for row in paid if row["paid"])
            assert (whole["paid"], whole["crunch"][:6]) == (FRAC_64_MULTIPLIER, "2ZqvS3")
            assert set(whole["ranked"]) <= {*MODELS, "house"}
            assert stack.get("/custom/tables/merkle")["nodes"] > 0

            # This is no tournament, so that its tournament.py serves, and says so.
            assert stack.ask("/tournament/rounds/r1/status")[0] == 404
            status, answer = stack.ask("/tournament/rounds/r1/inference", {"features": [{"x": 1}]})
            assert (status, "not for tournaments" in answer["detail"]) == (409, True)

            stack.until(f"/reports/backfill/jobs/{job['id']}", lambda found: found["status"] == "completed")
            assert stack.get("/custom/tables/backfills")["jobs"][0]["status"] == "completed"
            start, end = backfill(now)["start"], backfill(now)["end"]
            played = run(node, settings_of(node, [challenge]), "-c", PLAY, stack.url, folder / "days", start, end)
            assert {"ic", "ic_sharpe", "hit_rate", "max_drawdown"} <= metrics_of(played, "older").keys()
            assert METRICS | {"score_recent", "sortino_ratio"} <= metrics_of(played, "today").keys()
            assert stack.end(INTERRUPT) == {"up": 0}
    assert [line.count("overrides.py") for line in stack.output.splitlines() if "custom route refused" in line] == [1]
    assert stack.findings() == []


def backfill(now: datetime) -> dict[str, str]:
    feed = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    start = min(midnight, now - timedelta(minutes=40)) - timedelta(minutes=30)
    return {**feed, "start": start.isoformat(), "end": (start + timedelta(minutes=30)).isoformat()}


def test_an_older_layout_with_a_feed_of_its_own_and_plain_sql_on_a_database_of_0_1_84(
    empty_database_url: str, connect: Callable[[str], Engine]
) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    fill_as_0_1_84(connect(empty_database_url), began)
    with copied("eth-drift") as folder:
        node, packages = folder / "crunch-node-eth-drift", (folder / "crunch-eth-drift", folder / "packages")
        with_database = settings_of(node, packages) | {"DATABASE_URL": empty_database_url}
        assert "0.1.84 was adopted" in run(node, with_database, "-m", "coordinator_node.db.init_db")
        # A deployment of that time had no checkpoint worker.
        four = ("feed", "predict", "score", "report")
        with workers(node, packages, node / "models", empty_database_url, four, "a-key-of-that-time") as stack:
            # The predecessor's own prediction, which nobody had scored yet, ranks its model; what it had counted stays.
            board = stack.until("/reports/leaderboard", lambda rows: ranked(rows) == {"drifter", "flat", "old-gone"})
            assert [row["loss_day"] for row in board] == sorted(row["loss_day"] for row in board)
            assert {row["model_id"]: row["score_ranking"]["direction"] for row in board} == dict.fromkeys(
                ranked(board), "asc"
            )
            assert next(row for row in board if row["model_id"] == "drifter")["seen"] >= 1
            feed = stack.get("/reports/feeds")[0]
            assert (feed["source"], feed["subject"], feed["kind"]) == ("paper-exchange", "ETH", "candle")

            stack.post("/custom/sql/call?value=1.5", {})
            stack.until("/custom/sql/statuses", lambda found: found.get("desk/SCORED") == 1)
            stack.post("/custom/sql/summary?loss=2.5", {})
            stack.until("/reports/leaderboard", lambda rows: "desk" in ranked(rows))
            stack.until("/custom/sql/statuses", lambda found: found.get("__ensemble_both__/SCORED"))

            def paying(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
                return [row for row in rows if row["meta"].get("ranking") and not row["id"].startswith("old-")]

            checkpoints = stack.until("/reports/checkpoints?limit=100", paying)
            own = [row for row in checkpoints if not row["id"].startswith("old-")]
            assert datetime.fromisoformat(own[-1]["period_start"]) == began - timedelta(seconds=OLD_SECONDS)
            rewards = paying(checkpoints)[0]["entries"][0]["cruncher_rewards"]
            assert sum(reward["reward_pct"] for reward in rewards) == FRAC_64_MULTIPLIER
            assert len(rewards) <= 2
            old = stack.post("/reports/checkpoints/old-checkpoint/confirm", {"tx_hash": "0xabc"})
            assert (old["status"], old["tx_hash"]) == ("SUBMITTED", "0xabc")
            assert stack.get("/custom/sql/kept") == KEPT
            assert set(stack.end(TERMINATE).values()) == {0}
    assert stack.findings() == []


def test_rounds_with_a_router_of_their_own(database_url: str) -> None:
    three = ("predict", "score", "report")
    with (
        copied("guess-rounds") as folder,
        workers(folder / "node", [folder / "challenge"], folder / "node/submissions", database_url, three) as stack,
    ):
        stack.until("/reports/models", lambda rows: len(rows) == 2)
        asked = {"features": [{"x": 1.0}, {"x": 2.0}]}
        stack.post("/tournament/rounds/r1/inference", asked)
        stack.until("/tournament/rounds/r1/status", lambda found: found["predictions"] == 4)
        stack.post("/tournament/rounds/r1/score", {"ground_truth": [{"target": 2.0}, {"target": 4.0}]})
        stack.until("/tournament/rounds/r1/status", lambda found: found["scored"] == 4)
        # The built-in routes stand before those of the same paths; what it has besides is its own.
        said = stack.get("/tournament/rounds/r1/predictions?status=SCORED")
        assert [row["output"]["value"] for row in said] == [1.0, 2.0, 1.0, 4.0]
        board = stack.until("/reports/leaderboard", lambda rows: ranked(rows) == {"linear", "guess"})
        assert [(row["model_id"], row["score_recent"]) for row in board] == [("linear", 0.0), ("guess", -2.0)]
        paid = stack.until("/reports/checkpoints", lambda rows: any(row["meta"]["ranking"] for row in rows))
        assert next(row for row in paid if row["meta"]["ranking"])["meta"]["ranking"][0]["model_id"] == "linear"
        assert set(stack.end(TERMINATE).values()) == {0}
    assert stack.output.count("custom route refused") == 3
    assert stack.findings() == []
