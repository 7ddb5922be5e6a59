"""What a worker is set up with and cannot use stops it before any database answers, with the variable's name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator_node.config.settings import load_settings
from coordinator_node.config_loader import reset_cache
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.workers import checkpoint_worker, predict_worker, score_worker

NOWHERE = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "FEED_SOURCE": "simulated"}
BUILDS = {"predict": predict_worker.build, "score": score_worker.build, "checkpoint": checkpoint_worker.build}


@pytest.fixture(autouse=True)
def _no_config_is_kept() -> Iterator[None]:
    reset_cache()
    yield
    reset_cache()


@pytest.mark.parametrize(
    ("role", "variable"),
    [
        ("predict", "INFERENCE_INPUT_BUILDER"),
        ("predict", "INFERENCE_OUTPUT_VALIDATOR"),
        ("score", "SCORING_FUNCTION"),
        ("score", "MODEL_SCORE_AGGREGATOR"),
        ("score", "LEADERBOARD_RANKER"),
        ("checkpoint", "LEADERBOARD_RANKER"),
    ],
)
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_module:function", "no_such_module:function: cannot be imported: ModuleNotFoundError"),
        ("json:no_such_function", "json:no_such_function: cannot be imported: AttributeError"),
        ("math:pi", "math:pi: is a float, not a callable"),
        ("function", "'function' is not a dotted path: write module:callable"),
    ],
)
def test_a_dotted_path_that_leads_nowhere(role: str, variable: str, path: str, said: str) -> None:
    settings = load_settings({**NOWHERE, variable: path})
    with pytest.raises(ConfigurationError, match=f"^{variable}: {said}"):
        BUILDS[role](settings)


def test_the_process_ends_with_2_and_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "coordinator_node.workers.predict_worker"],
        env={"PATH": os.environ["PATH"], "GATEWAY_CERT_DIR": str(tmp_path), **NOWHERE},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 2, ended.stderr
    assert said.startswith(
        f"predict worker: wrong configuration: GATEWAY_CERT_DIR: {tmp_path} cannot be used: FileNotFoundError"
    )
