"""The built wheel, installed by itself, has all that the checkout has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("alembic", "coordinator", "coordinator_node", "docs", "packs", "scaffold"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def python(installed: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(installed), **environment}
    return subprocess.run(
        [sys.executable, *arguments], cwd=installed.parent, env=env, capture_output=True, text=True, timeout=60
    )


def test_it_is_the_installed_one_and_brings_types_migrations_and_the_demo(installed: Path) -> None:
    done = python(installed, "-c", "import coordinator_node; print(coordinator_node.__file__)")
    assert done.stdout.strip().startswith(str(installed)), done.stderr
    package = installed / "coordinator_node"
    assert (package / "py.typed").exists()
    assert sorted(p.name for p in (package / "_alembic" / "versions").glob("*.py"))
    assert (package / "local" / "demo_workspace" / "submissions" / "momentum" / "submission.json").exists()
    node = package / "_templates" / "scaffold" / "node"
    assert all((node / name).exists() for name in (".local.env.example", "requirements.lock", "wheels/README.md"))
    assert (node.parent / ".dockerignore").exists()
    assert (package / "_verify.py").exists()
    assert (package / "_templates" / "packs" / "prediction" / "pack.toml").exists()
    assert (installed / "coordinator" / "contracts.py").exists()


def test_it_has_every_command_template_and_migration_of_the_checkout(installed: Path) -> None:
    (entry_points,) = installed.glob("coordinator_node-*.dist-info/entry_points.txt")
    assert set(re.findall(r"^([\w-]+) = ", entry_points.read_text(), re.MULTILINE)) == {
        "coordinator-node",
        "coordinator",
        "crunch-cli",
    }
    package = installed / "coordinator_node"
    for folder, place in (("alembic", "_alembic"), ("scaffold", "_templates/scaffold"), ("packs", "_templates/packs")):
        assert files_in(package / place) == files_in(ROOT / folder)
    assert (package / "_verify.py").read_bytes() == (ROOT / "docs" / "verify" / "verify.py").read_bytes()


def files_in(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def test_init_db_finds_its_migrations(installed: Path, empty_database_url: str) -> None:
    done = python(installed, "-m", "coordinator_node.db.init_db", DATABASE_URL=empty_database_url)
    assert done.returncode == 0, done.stderr
    engine = create_engine(empty_database_url)
    assert {"predictions", "leases", "alembic_version"} <= set(inspect(engine).get_table_names())
    engine.dispose()
