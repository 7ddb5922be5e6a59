"""What the OpenAPI page says beyond the routes: examples, and which operations need the key in this deployment."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts

from coordinator_node.api.auth import PARAMETER, Door, TierGuard
from coordinator_node.schemas.report.examples import EXAMPLES

SCHEMES = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "address": {"type": "apiKey", "in": "query", "name": PARAMETER},
}
ANY_SCHEME: list[dict[str, list[str]]] = [{name: []} for name in SCHEMES]


def describe(app: FastAPI, door: Door) -> None:
    """Add an example to each answer and body, the ways to send the key, and to each operation whether it needs one."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = plain()
            _show_examples(page)
            if door.has_key:
                _describe_keys(page, app, door)
        return plain()

    app.openapi = described  # type: ignore[method-assign] # FastAPI's documented way to extend the page


def _show_examples(page: dict[str, Any]) -> None:
    for name, schema in page.get("components", {}).get("schemas", {}).items():
        if name in EXAMPLES:
            schema["examples"] = [EXAMPLES[name]]


def _describe_keys(page: dict[str, Any], app: FastAPI, door: Door) -> None:
    page.setdefault("components", {})["securitySchemes"] = SCHEMES
    for route in iter_route_contexts(app.routes):
        for method in _closed_methods(route, door):
            operation = page["paths"].get(route.path, {}).get(method.lower())
            if operation is not None:
                operation["security"] = ANY_SCHEME


def _closed_methods(route: RouteContext, door: Door) -> list[str]:
    path, dependant = route.path, getattr(route, "dependant", None)
    if path is None or dependant is None:
        return []
    tiers = [door.rules.tier_of_path(path)]
    tiers += [
        door.rules.tier_of_route(guard.call.tier, path)
        for guard in dependant.dependencies
        if isinstance(guard.call, TierGuard)
    ]
    return [method for method in route.methods or () if door.rules.needs_key(method, max(tiers))]
