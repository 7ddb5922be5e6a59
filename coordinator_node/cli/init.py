"""What `coordinator-node init` does: copies the scaffold, lays a pack over it, and gives both the workspace's name."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distribution, packages_distributions, version
from pathlib import Path

import typer

from coordinator_node.cli.own_wheel import checkout, put_wheel
from coordinator_node.cli.templates import DESCRIPTION, find_pack, scaffold_folder
from coordinator_node.entities.errors import ConfigurationError

DISTRIBUTION = "coordinator-node"
TEMPLATE_NAME = "starter-challenge"
TEMPLATE_MODULE = "starter_challenge"
KEBAB_CASE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_NAME = 60
# Modules that a workspace, its models or its tests import by these names, or that its challenge brings.
TAKEN_MODULES = (
    *("api", "config", "coordinator", "coordinator_node", "main", "pandas", "pytest", "runtime_definitions", "tests"),
    "tracker",
)
ENV_FILE = ".local.env"
# What is copied from a checkout in which somebody tried a template.
LEFT_OUT = ("__pycache__", "*.pyc", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".coordinator", DESCRIPTION)


class WorkspaceExistsError(RuntimeError):
    """The folder to be made is there already."""


@dataclass(frozen=True)
class Layout:
    """What the two parts of a workspace are called, below its own folder; {name} stands for the workspace's name."""

    node: str = "node"
    challenge: str = "challenge"


# What the command `coordinator` has always made.
OLDER_LAYOUT = Layout("crunch-node-{name}", "crunch-{name}")


def run_init(name: str, pack: str, parent: Path, layout: Layout, *, force: bool) -> int:
    """Make a workspace and say what to do next; returns the exit code."""
    try:
        target = create_workspace(name, pack, parent, layout, force=force)
    except shutil.Error as error:  # of many files at once
        source, _, reason = error.args[0][0]
        typer.echo(f"no workspace was made: {source} cannot be copied: {reason}", err=True)
        return 1
    except (WorkspaceExistsError, OSError) as error:
        typer.echo(f"no workspace was made: {error}", err=True)
        return 1
    _bring_own_version(target / layout.node.format(name=name) / "wheels")
    typer.echo(f"made {target} from the pack {pack}. Next:")
    typer.echo(f"  cd {target}")
    typer.echo("  make up            # the whole competition on this machine, without Docker")
    typer.echo("  make deploy        # or in containers")
    typer.echo("  make verify-e2e    # while it runs: is every model scored, is there a leaderboard and a checkpoint?")
    return 0


def _bring_own_version(wheels: Path) -> None:
    source = checkout()
    if source is not None and (problem := put_wheel(source, wheels)):
        typer.echo(
            f"no wheel of {source} could be built ({problem}): containers will run the release {version(DISTRIBUTION)}",
            err=True,
        )


def create_workspace(name: str, pack_name: str, parent: Path, layout: Layout, *, force: bool = False) -> Path:
    """Make the workspace NAME/ in a folder, whole or not at all. Returns where it stands.

    It is put together beside its place and moved there in the end, so that a failure leaves nothing. With `force` the
    files of a workspace that is there are replaced by those of the templates; its other files stay, and so does its
    .local.env, which holds the operator's own settings.

    Raises:
        ConfigurationError: the name is not in kebab-case, or there is no such pack.
        WorkspaceExistsError: the folder is there, without `force`; or what it holds is in the way of a template's file.
        OSError: it cannot be written.
    """
    _check_name(name)
    pack = find_pack(pack_name)
    target = parent / name
    if target.exists() and not force:
        raise WorkspaceExistsError(f"{target} is there already; choose another name, or --force to write over it")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as made:
        making = Path(made) / name
        for source in (scaffold_folder(), pack.folder):
            shutil.copytree(source, making, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        _rename(making, name, layout)
        node = making / layout.node.format(name=name)
        shutil.copy(node / f"{ENV_FILE}.example", node / ENV_FILE)
        if target.exists():
            _lay_over(making, target)
        else:
            making.rename(target)
    return target


def _lay_over(making: Path, target: Path) -> None:
    """Move the files into a folder that is there, after a look whether all of them can be."""
    moves = [(path, target / path.relative_to(making)) for path in sorted(making.rglob("*"))]
    for path, place in [(making, target), *moves]:
        if place.exists() and path.is_dir() != place.is_dir():
            kind = "folder" if path.is_dir() else "file"
            raise WorkspaceExistsError(f"{place} is no {kind}; move it away, or choose another name")
    for path, place in moves:
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif not (path.name == ENV_FILE and place.exists()):
            path.replace(place)


def _check_name(name: str) -> None:
    if not KEBAB_CASE.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"{name!r} cannot name a workspace: use up to {LONGEST_NAME} small letters, digits and single hyphens,"
            f" beginning with a letter, as in btc-up"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in {*sys.stdlib_module_names, *TAKEN_MODULES, *_installed_modules()}:
        raise ConfigurationError(
            f"{name!r} cannot name a workspace: Python's module {module} would be hidden by its own"
        )


def _installed_modules() -> set[str]:
    """The modules of packages that were installed from elsewhere than a folder, as a workspace's challenge is."""
    return {name for name, owners in packages_distributions().items() if not any(map(_is_from_folder, owners))}


def _is_from_folder(name: str) -> bool:
    return "dir_info" in (distribution(name).read_text("direct_url.json") or "")


def _rename(folder: Path, name: str, layout: Layout) -> None:
    """Put the workspace's name for the template's, in the files' texts and in the names of files and folders."""
    parts = {"node": layout.node.format(name=name), "challenge": layout.challenge.format(name=name)}
    words = {TEMPLATE_NAME: name, TEMPLATE_MODULE: name.replace("-", "_")}
    words |= {f"@{part}@": place for part, place in parts.items()}
    words["@version@"] = version(DISTRIBUTION)
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds comes before the folder
        if path.is_file():
            content = path.read_text(encoding="utf-8")
            path.write_text(_replaced(content, words), encoding="utf-8")
        if (renamed := _replaced(path.name, words)) != path.name:
            path.rename(path.with_name(renamed))
    for part, place in parts.items():
        if place != part:
            (folder / part).rename(folder / place)


def _replaced(content: str, words: dict[str, str]) -> str:
    for word, replacement in words.items():
        content = content.replace(word, replacement)
    return content
