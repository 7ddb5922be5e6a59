"""Workspaces made from templates: whole or not at all, by every spelling, with models and scores that hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator_node.cli import init
from coordinator_node.cli.init import OLDER_LAYOUT, Layout, WorkspaceExistsError, create_workspace
from coordinator_node.cli.main import app
from coordinator_node.cli.older import coordinator, crunch_cli
from coordinator_node.cli.templates import find_pack, packs
from coordinator_node.entities.errors import ConfigurationError

PACKS = sorted(packs())


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pack", PACKS)
def test_a_workspace_has_everything_under_its_own_name(tmp_path: Path, pack: str) -> None:
    target = create_workspace("btc-up", pack, tmp_path, Layout())
    names = names_in(target)
    assert names >= {
        "Makefile",
        "README.md",
        "node/Makefile",
        "node/.local.env",
        "node/.local.env.example",
        "node/.production.env.example",
        ".dockerignore",
        "node/docker-compose.yml",
        "node/Dockerfile",
        "node/requirements.lock",
        "node/wheels/README.md",
        "node/scripts/deploy.py",
        "node/config/crunch_config.py",
        "node/api/example_endpoints.py.disabled",
        "node/scripts/verify_e2e.py",
        "challenge/pyproject.toml",
        "challenge/README.md",
        "challenge/btc_up/tracker.py",
        "challenge/btc_up/scoring.py",
        "challenge/btc_up/config.py",
        "challenge/btc_up/backtest.py",
    }
    assert len([name for name in names if name.startswith("challenge/btc_up/examples/")]) == 4
    texts = [name + (target / name).read_text() for name in names]
    assert not [
        text for text in texts if any(word in text for word in ("starter-ch", "starter_ch", "@node", "@chal", "@vers"))
    ]
    assert list(tmp_path.iterdir()) == [target]


def test_the_older_spelling_makes_the_older_layout(tmp_path: Path) -> None:
    done = CliRunner().invoke(coordinator, ["init", "eth-down", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    names = names_in(tmp_path / "eth-down")
    assert {"crunch-node-eth-down/config/crunch_config.py", "crunch-eth-down/eth_down/scoring.py"} <= names
    assert "PYTHONPATH=../crunch-eth-down" in (tmp_path / "eth-down/crunch-node-eth-down/.local.env").read_text()


def test_a_workspace_made_by_a_checkout_brings_its_wheel_for_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(app, ["init", "btc-up", "-o", str(tmp_path)]).exit_code == 0
    assert [file.name for file in (tmp_path / "btc-up/node/wheels").glob("coordinator_node-*.whl")]
    monkeypatch.setattr(init, "checkout", lambda: tmp_path / "btc-up")
    done = CliRunner().invoke(app, ["init", "eth-up", "-o", str(tmp_path)])
    assert done.exit_code == 0
    assert "no wheel of" in done.output
    assert [file.name for file in (tmp_path / "eth-up/node/wheels").iterdir()] == ["README.md"]


def test_the_older_demo_scaffolds_and_the_other_tools_spelling_is_init(tmp_path: Path) -> None:
    assert CliRunner().invoke(coordinator, ["demo", "-o", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "btc-up" / "crunch-node-btc-up" / "Makefile").is_file()
    assert CliRunner().invoke(crunch_cli, ["init-workspace", "other", "-o", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "other" / "node" / "Makefile").is_file()


@pytest.mark.parametrize("name", ["", "Btc", "btc_up", "-btc", "btc-", "a--b", "1btc", "../up", "a b", "x" * 61, "é"])
def test_a_name_that_is_not_kebab_case_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="btc-up"):
        create_workspace(name, "prediction", tmp_path, Layout())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["json", "class", "tracker", "coordinator-node", "tests", "numpy", "pytest"])
def test_a_name_that_would_hide_a_module_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="hidden"):
        create_workspace(name, "prediction", tmp_path, Layout())


def test_an_unknown_pack_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=", ".join(PACKS)):
        create_workspace("btc-up", "poker", tmp_path, Layout())


def test_a_workspace_that_is_there_is_written_over_only_by_force(tmp_path: Path) -> None:
    target = create_workspace("btc-up", "prediction", tmp_path, OLDER_LAYOUT)
    own, ours = target / "notes.txt", target / "Makefile"
    own.write_text("mine")
    ours.write_text("broken")
    with pytest.raises(WorkspaceExistsError):
        create_workspace("btc-up", "prediction", tmp_path, OLDER_LAYOUT)
    assert ours.read_text() == "broken"
    create_workspace("btc-up", "prediction", tmp_path, OLDER_LAYOUT, force=True)
    assert own.read_text() == "mine"
    assert "verify-e2e" in ours.read_text()


def test_force_keeps_the_operators_settings_and_changes_nothing_where_something_is_in_the_way(tmp_path: Path) -> None:
    target = create_workspace("btc-up", "prediction", tmp_path, Layout())
    settings, readme, makefile = target / "node/.local.env", target / "README.md", target / "node/Makefile"
    settings.write_text("API_KEY=secret")
    readme.write_text("old")
    create_workspace("btc-up", "prediction", tmp_path, Layout(), force=True)
    assert settings.read_text() == "API_KEY=secret"
    assert "btc-up" in readme.read_text()
    readme.write_text("old")
    makefile.unlink()
    makefile.mkdir()
    with pytest.raises(WorkspaceExistsError, match="node/Makefile is no file"):
        create_workspace("btc-up", "prediction", tmp_path, Layout(), force=True)
    assert readme.read_text() == "old"
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceExistsError, match="file is no folder"):
        create_workspace("file", "prediction", tmp_path, Layout(), force=True)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(init, "_rename", full)
    done = CliRunner().invoke(app, ["init", "btc-up", "-o", str(tmp_path)])
    assert done.exit_code == 1
    assert "No space left on device" in done.output
    assert not list(tmp_path.iterdir())


def test_list_packs_describes_each(tmp_path: Path) -> None:
    lines = CliRunner().invoke(app, ["list-packs"]).output.splitlines()
    assert [line.split()[0] for line in lines] == PACKS
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize("pack", PACKS)
def test_a_packs_readme_states_the_scores_formula(pack: str) -> None:
    readme = (find_pack(pack).folder / "challenge" / "README.md").read_text()
    section = readme.partition("\n## The score\n")[2].partition("\n## ")[0]
    assert re.search(r"^    (score|profit|CRPS) = ", section, re.MULTILINE)


@pytest.mark.parametrize("pack", PACKS)
def test_the_challenges_own_tests_pass_and_the_nodes_config_loads(tmp_path: Path, pack: str) -> None:
    target = create_workspace("my-crunch", pack, tmp_path, Layout())
    run(target / "challenge", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    config = run(
        target / "node",
        "-c",
        "from coordinator_node.config_loader import load_config; print(type(load_config()).__module__)",
        PYTHONPATH="../challenge",
    )
    assert config.strip() == "config.crunch_config"


def test_examples_become_submissions(tmp_path: Path) -> None:
    node = create_workspace("my-crunch", "prediction", tmp_path, Layout()) / "node"
    run(node, "scripts/make_submissions.py", "../challenge/my_crunch", "submissions")
    assert {path.name for path in (node / "submissions").iterdir()} == {"fading", "guess", "momentum"}
    asking = "import main; print(main.Momentum().predict('BTC', 15, 5))"
    assert "value" in run(node / "submissions" / "momentum", "-c", asking)


def run(folder: Path, *arguments: str, **environment: str) -> str:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
