"""An operator's own endpoints: files of API_ROUTES_DIR, and the dotted paths of API_ROUTES."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from fastapi import APIRouter, FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute

from coordinator_node.config.settings import Settings
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)


def mount_custom_routers(app: FastAPI, settings: Settings) -> None:
    """Mount them behind what the application already has, which they never replace.

    A route that an earlier one would answer anyway is left out, with a warning that names both.

    Raises:
        ConfigurationError: a file or module that cannot be imported or mounted, by name.
    """
    for origin, router in [*_from_directory(settings.api_routes_dir), *_from_paths(settings.api_routes)]:
        _mount(app, origin, router)


def _from_directory(directory: Path) -> Iterator[tuple[str, APIRouter]]:
    for file in sorted(directory.glob("*.py")):
        if file.name.startswith("_"):
            continue
        router = getattr(_import_file(file), "router", None)
        if isinstance(router, APIRouter):
            yield str(file), router
        else:
            log.warning("no custom routes: its `router` is not an APIRouter", file=str(file))


def _import_file(file: Path) -> ModuleType:
    name = f"coordinator_node_custom_routes_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"API_ROUTES_DIR: {file} cannot be imported as a Python module")
    module = importlib.util.module_from_spec(spec)
    # Pydantic models and dataclasses look their module up by name while they are defined.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # an operator's file may raise anything while it is imported
        raise ConfigurationError(
            f"API_ROUTES_DIR: {file} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _from_paths(paths: tuple[str, ...]) -> Iterator[tuple[str, APIRouter]]:
    for path in paths:
        module_name, _, attribute = path.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # an operator's module may raise anything while it is imported
            raise ConfigurationError(
                f"API_ROUTES: {path} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        router = getattr(module, attribute or "router", None)
        if not isinstance(router, APIRouter):
            raise ConfigurationError(f"API_ROUTES: {path} is not an APIRouter")
        yield path, router


def _mount(app: FastAPI, origin: str, router: APIRouter) -> None:
    earlier = list(iter_route_contexts(app.routes))
    kept = copy.copy(router)
    kept.routes = [route for route in router.routes if not _all_taken(origin, route, earlier)]
    try:
        app.include_router(kept)
    except Exception as error:  # FastAPI refuses what cannot be mounted with errors of several types
        raise ConfigurationError(f"custom routes of {origin} cannot be mounted: {error}") from error
    log.info("custom routes mounted", origin=origin, routes=len(kept.routes))


def _all_taken(origin: str, route: BaseRoute, earlier: list[RouteContext]) -> bool:
    """Whether nothing would ever reach a route, or any route of a router nested here; warns for each."""
    mine = list(iter_route_contexts([route]))
    taken = [(own, found) for own in mine if (found := _taken_by(own, earlier))]
    for own, found in taken:
        log.warning(
            "custom route refused: it clashes with an earlier one, which stays",
            custom=f"{_named(own)} of {origin}",
            earlier=_named(found),
        )
    # Of a nested router, a taken route may stay beside its siblings: the earlier one comes first and answers.
    return bool(mine) and len(taken) == len(mine)


def _taken_by(own: RouteContext, earlier: list[RouteContext]) -> RouteContext | None:
    """The earlier route that answers whatever this one would, for a method of its own; None if there is none."""
    path = (own.path or "").rstrip("/") or "/"
    for other in earlier:
        if (own.methods or set()) & (other.methods or set()) and other.path_regex.match(path):
            return other
    return None


def _named(route: RouteContext) -> str:
    endpoint = route.endpoint
    where = f"{endpoint.__module__}:{endpoint.__qualname__}" if endpoint is not None else str(route.name)
    return f"{','.join(sorted(route.methods or ()))} {route.path} ({where})"
