"""The script behind `make deploy`, with a stand-in for docker on PATH that says what it was asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deploy_cases import SCAFFOLD

SCRIPT = SCAFFOLD / "node" / "scripts" / "deploy.py"
STAND_IN = """#!/bin/sh
shift 3  # compose --env-file .local.env
if [ "$1" = config ]; then cat variables; exit; fi
if [ "$1" = ps ]; then cat containers; exit; fi
echo "asked: $* ($COMPOSE_PROFILES, internal $MODELS_INTERNAL $DATA_INTERNAL)"
[ "$1" != "$(cat failing)" ]
"""


def deployed(
    folder: Path, *arguments: str, variables: str = "", failing: str = "", containers: str = ""
) -> tuple[int, str]:
    """The exit code of the script and all that it printed."""
    docker = folder / "docker"
    docker.write_text(STAND_IN)
    docker.chmod(0o755)
    (folder / "variables").write_text(variables)
    (folder / "failing").write_text(failing)
    (folder / "containers").write_text(containers)
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_it_builds_starts_waits_and_prints_where_the_api_is(tmp_path: Path) -> None:
    code, output = deployed(tmp_path, "--scale", "score-worker=3", variables="REPORT_API_PORT=18000\nAPI_KEY=\n")
    assert code == 0
    lines = output.splitlines()
    assert lines[0] == "asked: build (models, internal true true)"
    assert lines[1].startswith("asked: up --detach --wait ")
    assert lines[1].endswith("--scale score-worker=3 (models, internal true true)")
    assert "http://127.0.0.1:18000" in lines[2]


def test_an_orchestrator_elsewhere_is_reached_and_ours_left_out(tmp_path: Path) -> None:
    _, output = deployed(tmp_path, variables="MODEL_RUNNER_NODE_HOST=models.example.org\nMODELS_INTERNAL=true\n")
    assert "asked: build (, internal false true)" in output


@pytest.mark.parametrize(
    ("variables", "internal"),
    [
        ("POSTGRES_HOST=postgres\n", "true"),
        ("DATABASE_URL=postgresql://u:p@postgres:5432/db\nPOSTGRES_HOST=unused\n", "true"),
        ("POSTGRES_HOST=db.example.org\nDATA_INTERNAL=true\n", "false"),
        ("DATABASE_URL=postgresql://u:p@db.example.org:5432/db?sslmode=require\n", "false"),
        ("DATABASE_READ_URL=postgres://u@replica.example.org/db\n", "false"),
        ("DATA_INTERNAL=false\n", "false"),
    ],
)
def test_a_database_elsewhere_is_reached(tmp_path: Path, variables: str, internal: str) -> None:
    _, output = deployed(tmp_path, variables=variables)
    assert f"asked: build (models, internal true {internal})" in output


def test_the_web_app_is_started_where_its_folder_is_named(tmp_path: Path) -> None:
    variables = "REPORT_UI_BUILD_CONTEXT=../web\nPUBLISH_ADDRESS=0.0.0.0\nMODELS_INTERNAL=false\n"
    _, output = deployed(tmp_path, variables=variables)
    assert "asked: build (models,ui, internal false true)" in output
    assert "http://127.0.0.1:3000" in output


def test_what_did_not_become_healthy_is_shown(tmp_path: Path) -> None:
    containers = (
        '{"Service": "migrate", "State": "exited", "ExitCode": 0, "Health": ""}\n'
        '{"Service": "feed-worker", "State": "running", "ExitCode": 0, "Health": "unhealthy"}\n'
        '{"Service": "score-worker", "State": "running", "ExitCode": 0, "Health": "healthy"}\n'
    )
    code, output = deployed(tmp_path, failing="up", containers=containers)
    assert code == 1
    assert "not healthy: feed-worker; their last lines" in output
    assert "asked: logs --tail 20 feed-worker" in output


def test_without_docker_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=tmp_path,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "docker is not installed" in done.stderr
