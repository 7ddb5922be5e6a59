"""The dashboard and the alert rules name what the engine really exposes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from api_cases import NOW, Client, settings, store
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from coordinator_node.api.app import create_app
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.tables import FeedIngestionStateRow, LeaderboardRow
from coordinator_node.runtime.heartbeat import Heartbeat
from coordinator_node.runtime.loop import PassResult
from coordinator_node.runtime.metrics import count_failure, measured

FOLDER = Path(__file__).parents[2] / "deployment" / "observability"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = (FOLDER / "alerts.yml").read_text()
NAME = re.compile(r"coordinator_[a-z_]+")
STAGES = {"feed", "predict", "score", "snapshot", "checkpoint", "backfill", "leaderboard"}


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def alert_expressions() -> list[str]:
    """One of each rule; an expression may go on over lines that are indented deeper."""
    return re.findall(r"^        expr: (.+?)^        \w", RULES, re.DOTALL | re.MULTILINE)


def expressions() -> Iterator[str]:
    yield from dashboard_expressions()
    yield from alert_expressions()


async def worked() -> PassResult:
    return PassResult({"predictions": 1})


@pytest.fixture
def exposed(engine: Engine) -> dict[str, set[str]]:
    """The name and labels of every sample of an engine in which everything has happened once, with a read replica."""
    asyncio.run(measured("predict", worked)())
    count_failure("predict", "timeout")
    Heartbeat(engine, "score").beat()
    feed = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
    store(engine, FeedIngestionStateRow(**feed, last_event_ts=NOW, updated_at=NOW), LeaderboardRow(created_at=NOW))
    app = create_app(settings(FEED_SOURCE="simulated"), engine, CrunchConfig(), lambda: NOW, replica=engine)
    with closing(Client(app)) as client:
        client.get("/info")
        text = client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_that_is_named_exists(exposed: dict[str, set[str]]) -> None:
    named = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(named) > 10
    assert named <= set(exposed)
    unseen = {name for name in exposed if name not in named and not name.endswith(("_sum", "_count"))}
    assert not unseen, "nobody looks at these"


def test_every_label_that_is_named_exists(exposed: dict[str, set[str]]) -> None:
    looked_at = 0
    for expression in expressions():
        labels = set[str]().union(*(exposed[name] for name in NAME.findall(expression) if name in exposed))
        named = set(re.findall(r"(\w+)=~?\"", expression)) - {"job"}
        for group in re.findall(r"by \(([^)]*)\)", expression):
            named |= {name.strip() for name in group.split(",")}
        assert named <= labels, expression
        looked_at += len(named)
    assert looked_at > 20


def test_every_legend_names_labels_that_are_left() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = re.findall(r"by \(([^)]*)\)", target["expr"])
            assert shown <= {name.strip() for name in kept[0].split(",")} if kept else not shown, target


def test_what_every_report_worker_shows_alike_is_shown_once() -> None:
    """Two report workers, as deployment/kubernetes has them, each show these of the same database."""
    same = ("_stage_backlog", "_stage_lag", "_worker_beat", "_feed_watermark")
    for expression in dashboard_expressions():
        if any(name in expression for name in same):
            assert "max" in expression, expression


def test_every_stage_that_is_named_exists() -> None:
    named = {stage for expression in expressions() for stage in re.findall(r'stage="(\w+)"', expression)}
    assert named
    assert named <= STAGES


def test_expressions_are_whole() -> None:
    for expression in expressions():
        for opened, closed in ("()", "{}", "[]"):
            assert expression.count(opened) == expression.count(closed), expression


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    blocks = RULES.split("      - alert: ")[1:]
    names = [block.splitlines()[0] for block in blocks]
    assert len(set(names)) == len(names) == len(alert_expressions()) > 10
    for block in blocks:
        for wanted in ("expr: ", "for: ", "severity: ", "summary: ", "action: "):
            assert block.count(wanted) == 1, block


def test_every_panel_has_a_place_and_a_title_of_its_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
