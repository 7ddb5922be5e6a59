"""How commands that are given beside a running stack find it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator_node.cli.doctor.workspace import inside
from coordinator_node.cli.init import Layout, create_workspace
from coordinator_node.local.running import RUNNING_FILE, STATE_FOLDER, announced, running_variables

ADDRESSES = {"POSTGRES_HOST": "/tmp/a b", "REPORT_API_PORT": "4321", "DATABASE_URL": "postgresql://x/y?host=/tmp/$a"}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    node = create_workspace("my-crunch", "prediction", tmp_path, Layout()) / "node"
    (node / STATE_FOLDER).mkdir()
    return node


def asked_of_make(node: Path, *arguments: str) -> str:
    """What a target of the workspace would run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "REPO"))}
    command = ["make", "--no-print-directory", "-n", *arguments]
    return subprocess.run(command, cwd=node, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_stack_is_found_while_it_runs(node: Path) -> None:
    with announced(node / STATE_FOLDER, ADDRESSES):
        assert running_variables(node) == ADDRESSES
        with inside(node):
            assert os.environ["DATABASE_URL"] == ADDRESSES["DATABASE_URL"]
            assert os.environ["CRUNCH_ID"] == "my-crunch"
        assert "--url http://127.0.0.1:4321" in asked_of_make(node, "check-models")
        settings = asked_of_make(node, "init-db").partition("coordinator-node")[0]
        shown = subprocess.run(
            ["sh", "-c", f'{settings} echo "$POSTGRES_HOST $DATABASE_URL"'], cwd=node, capture_output=True, text=True
        )
        assert shown.stdout.strip() == f"{ADDRESSES['POSTGRES_HOST']} {ADDRESSES['DATABASE_URL']}"
    assert running_variables(node) == {}


def test_what_a_killed_one_left_behind_is_not_believed(node: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    (node / STATE_FOLDER / RUNNING_FILE).write_text(f"UP_PID={ended.pid}\nREPORT_API_PORT=4321\n")
    assert running_variables(node) == {}
    assert "--url http://127.0.0.1:8000" in asked_of_make(node, "check-models")
    assert "coordinator/running" not in asked_of_make(node, "init-db")


def test_a_database_that_is_out_of_reach_is_said_to_be_that_of_the_settings(node: Path) -> None:
    (node / ".local.env").write_text("POSTGRES_HOST=127.0.0.1\nPOSTGRES_PORT=1\n")
    command = ["make", "--no-print-directory", "init-db"]
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(command, cwd=node, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "database cannot be reached" in done.stderr
    assert "no 'make up' runs here" in done.stderr
    assert "--profile '*' run --rm migrate" in done.stderr
