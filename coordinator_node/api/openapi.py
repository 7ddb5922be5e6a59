"""The OpenAPI page says which operations need the key: as this deployment is set, not as another might be."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts

from coordinator_node.api.auth import PARAMETER, Door, TierGuard

SCHEMES = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "address": {"type": "apiKey", "in": "query", "name": PARAMETER},
}
ANY_SCHEME: list[dict[str, list[str]]] = [{name: []} for name in SCHEMES]


def describe_keys(app: FastAPI, door: Door) -> None:
    """Add the ways to send the key, and to each operation whether it needs one. Without a key nothing does."""
    if not door.has_key:
        return
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = plain()
            page.setdefault("components", {})["securitySchemes"] = SCHEMES
            for route in iter_route_contexts(app.routes):
                for method in _closed_methods(route, door):
                    operation = page["paths"].get(route.path, {}).get(method.lower())
                    if operation is not None:
                        operation["security"] = ANY_SCHEME
        return plain()

    app.openapi = described  # type: ignore[method-assign] # FastAPI's documented way to extend the page


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
