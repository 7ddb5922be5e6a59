"""From a dotted path, or the variable that holds one, to an operator's callable."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from coordinator_node.config.settings import Settings, variable_names
from coordinator_node.entities.error_places import reason_and_place_of
from coordinator_node.entities.errors import ConfigurationError


def resolve_callable(path: str, required_params: tuple[str, ...] | None = None) -> Callable[..., Any]:
    """The callable at `module:callable` (or `module.callable`).

    Args:
        path: the dotted path.
        required_params: names that its signature must have, where it is given by name.

    Raises:
        ConfigurationError: no such module or name, not callable, or a parameter missing; the message names the path.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator:
        module_name, _, attribute = path.rpartition(".")
    if not module_name or not attribute:
        raise ConfigurationError(f"{path!r} is not a dotted path: write module:callable")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # an operator's module may raise anything while it is imported
        raise ConfigurationError(f"{path}: cannot be imported: {reason_and_place_of(error)}") from error
    if not callable(found):
        raise ConfigurationError(f"{path}: is a {type(found).__name__}, not a callable")
    callable_found: Callable[..., Any] = found
    missing = _missing_parameters(callable_found, required_params or ())
    if missing:
        raise ConfigurationError(f"{path}: lacks the parameter(s) {', '.join(missing)}")
    return callable_found


def configured_callable(settings: Settings, field: str) -> Callable[..., Any] | None:
    """The callable of a setting that is a dotted path, such as `scoring_function`; None where it is not set.

    Raises:
        ConfigurationError: as `resolve_callable`; the message begins with the variable's name.
    """
    path: str = getattr(settings, field)
    if not path:
        return None
    try:
        return resolve_callable(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable_names()[field][0]}: {error}") from error


def call_fault(function: Callable[..., Any], *arguments: str) -> str | None:
    """Why a function could not be called with so many arguments by position; None where it could, or cannot be told.

    `arguments` are their names, for the message.
    """
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:
        return None  # some built-in callables have no signature to look at
    except TypeError as error:
        return f"{getattr(function, '__qualname__', function)!s} must take ({', '.join(arguments)}): {error}"
    return None


def _missing_parameters(function: Callable[..., Any], required: tuple[str, ...]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built-ins have no signature to look at
        return []
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        return []
    names = {p.name for p in parameters}
    return [name for name in required if name not in names]
