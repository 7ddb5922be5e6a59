"""A workspace as its workers see it: its folder, its variables, and its modules."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator_node.config_loader import reset_cache
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.local.running import running_variables
from coordinator_node.local.workspace import ENV_FILE, workspace_variables

SIGNS = ("config", "runtime_definitions", ENV_FILE)
"""What of these a folder holds makes it a workspace."""


def workspace_folder(given: Path) -> Path:
    """The folder, if it is a workspace.

    Raises:
        ConfigurationError: it is none; the message names the workspace below it, if there is one.
    """
    folder = given.resolve()
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder")
    if any((folder / sign).exists() for sign in SIGNS):
        return folder
    below = sorted(file.parent.parent for file in folder.glob("*/config/crunch_config.py"))
    hint = f"; did you mean {below[0]}?" if below else ""
    raise ConfigurationError(f"{folder} is no workspace: it holds neither config/ nor {ENV_FILE}{hint}")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Be in the workspace for a while: its folder is the present one, its .local.env stands over the environment.

    Where a local stack runs in it, database, orchestrator and API are those of that stack.

    Modules are found in it and in the PYTHONPATH of its .local.env, whose entries are relative to it. Afterwards all is
    as before, and its modules are forgotten.
    """
    variables = workspace_variables(folder) | running_variables(folder)
    roots = [folder, *_python_path(variables.get("PYTHONPATH") or "", folder)]
    present, environment, path, modules = Path.cwd(), dict(os.environ), list(sys.path), set(sys.modules)
    try:
        os.chdir(folder)
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        sys.path[:0] = [str(root) for root in roots]
        importlib.invalidate_caches()
        reset_cache()
        yield
    finally:
        os.chdir(present)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if _lies_below(sys.modules[name], roots):
                del sys.modules[name]
        reset_cache()


def _python_path(text: str, folder: Path) -> list[Path]:
    return [(folder / entry).resolve() for entry in text.split(os.pathsep) if entry]


def _lies_below(module: object, roots: list[Path]) -> bool:
    file = getattr(module, "__file__", None)
    folders = [file] if file else list(getattr(module, "__path__", []))
    return any(Path(each).is_relative_to(root) for each in folders for root in roots)
