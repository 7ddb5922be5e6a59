"""Finds the operator's config. A config that is there and broken stops the worker; nothing falls back silently."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.error_places import place_of, reason_and_place_of, shown_path
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.json_values import reason_of, validation_reason

# Where a workspace keeps its config: today's place, then that of workspaces made before it.
WORKSPACE_PLACES = ("config.crunch_config:CrunchConfig", "runtime_definitions.contracts:CrunchContract")

_cached: CrunchConfig | None = None


def load_config() -> CrunchConfig:
    """The competition's config: CRUNCH_CONFIG_MODULE, the workspace's two places, else the engine's default.

    The answer is kept; `reset_cache` forgets it.

    Raises:
        ConfigurationError: a config was named or found, and cannot be used; the message names it and says why.
    """
    global _cached
    if _cached is None:
        _cached = _find_config()
    return _cached


def reset_cache() -> None:
    """Forget the loaded config, so that the next `load_config` looks again."""
    global _cached
    _cached = None


def config_path() -> str | None:
    """Where `load_config` looks, as `module:attribute`; None where there is no config but the engine's default.

    Raises:
        ConfigurationError: CRUNCH_CONFIG_MODULE names a module that is not there, or a package fails to import.
    """
    named = os.environ.get("CRUNCH_CONFIG_MODULE", "").strip()
    if named and not _exists(named):
        raise ConfigurationError(f"CRUNCH_CONFIG_MODULE={named}: there is no such module on the Python path")
    return named or next(filter(_exists, WORKSPACE_PLACES), None)


def _find_config() -> CrunchConfig:
    path = config_path()
    return CrunchConfig() if path is None else _load(path)


def _exists(path: str) -> bool:
    module_name = path.partition(":")[0]
    try:
        return importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError as error:
        # Only the place itself may be missing; what its own packages fail to import is an error of theirs.
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            return False
        raise ConfigurationError(f"config {path} cannot be imported: {reason_and_place_of(error)}") from error
    except Exception as error:  # an operator's package may raise anything while it is imported
        raise ConfigurationError(f"config {path} cannot be imported: {reason_and_place_of(error)}") from error


def _load(path: str) -> CrunchConfig:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an operator's module may raise anything while it is imported
        raise ConfigurationError(f"config {path} cannot be imported: {reason_and_place_of(error)}") from error
    found = getattr(module, attribute or "CrunchConfig", None)
    if isinstance(found, CrunchConfig):
        return found
    if not (isinstance(found, type) and issubclass(found, CrunchConfig)):
        raise ConfigurationError(
            f"config {path}: {attribute or 'CrunchConfig'} is not a CrunchConfig class or instance"
        )
    if found is CrunchConfig:
        return _only_instance(module, path)
    try:
        return found()
    except Exception as error:  # an operator's defaults and validators may raise anything
        place = place_of(error) or _place_of_class(found)
        reason = validation_reason(error) if isinstance(error, ValidationError) else reason_of(error)
        raise ConfigurationError(f"config {path} is not valid: {reason} ({place})") from error


def _place_of_class(found: type) -> str:
    try:
        return f"{shown_path(Path(inspect.getfile(found)))}:{inspect.getsourcelines(found)[1]}"
    except (OSError, TypeError):  # a class made in memory has no file
        return found.__qualname__


def _only_instance(module: ModuleType, path: str) -> CrunchConfig:
    instances = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, CrunchConfig)}
    if len(instances) == 1:
        return next(iter(instances.values()))[1]
    names = ", ".join(sorted(name for name, _ in instances.values())) or "none"
    raise ConfigurationError(
        f"config {path} is the engine's own class, so its module must hold one instance of it; it holds: {names}"
    )
