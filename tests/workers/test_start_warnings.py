"""Workers warn at their start of what `doctor` would find, and start all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator_node.config.settings import load_settings
from coordinator_node.config_loader import reset_cache
from coordinator_node.workers import checkpoint_worker, feed_data_worker, predict_worker, report_worker, score_worker

SETTINGS = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "FEED_SOURCE": "simulated"}
CONFIG = """
from coordinator_node.crunch_config import CrunchConfig as Base
def score(prediction, ground_truth): return {"value": prediction.get("valu", 0.0)}
class CrunchConfig(Base):
    scoring_function: object = score
    build_emission: object = lambda entries: {}
"""


@pytest.fixture(autouse=True)
def _config_with_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "start_warnings_config.py").write_text(CONFIG)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CRUNCH_CONFIG_MODULE", "start_warnings_config:CrunchConfig")
    monkeypatch.setenv("FEED_SUBJECT", "BTC")
    reset_cache()
    yield
    reset_cache()


@pytest.mark.parametrize(
    ("worker", "variables", "said"),
    [
        (feed_data_worker, {"FEED_KIND": "depth"}, ["simulated has no depth records"]),
        (predict_worker, {}, []),
        (score_worker, {}, ["different predictions get the same score; it looked for 'valu'", "build_emission"]),
        (checkpoint_worker, {}, ["build_emission"]),
        (report_worker, {"REPORT_API_HOST": "127.0.0.1"}, []),
    ],
)
def test_mistakes_are_warned_of_and_stop_nobody(
    worker: Any, variables: dict[str, str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listened: list[Any] = []
    monkeypatch.setattr(report_worker, "listen_on", lambda *address: listened.append(address))
    with capture_logs() as logs:
        engine, _ = worker.build(load_settings({**SETTINGS, **variables}))
    engine.dispose()
    warned = [entry for entry in logs if entry["log_level"] == "warning" and "check" in entry]
    assert [entry["event"].split()[0] for entry in warned if entry["check"] == "variables"] == ["FEED_SUBJECT"]
    others = [entry["event"] for entry in warned if entry["check"] != "variables"]
    assert len(others) == len(said), others
    assert all(part in event for part, event in zip(said, others, strict=True)), others
