"""The API's page tells a newcomer all: what each endpoint is for, what goes in and comes out, with an example."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_cases import report_app
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import Engine

from coordinator_node.api.routes.backfill import PARQUET
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.prediction import RetainingEmission
from coordinator_node.schemas import report
from coordinator_node.schemas.report.examples import EXAMPLES
from coordinator_node.services.tournament_predict import TournamentPredictService

Json = dict[str, Any]


@pytest.fixture
def page(engine: Engine) -> Json:
    return report_app(engine, CrunchConfig(predict_service_class=TournamentPredictService)).openapi()


def operations(page: Json) -> Iterator[tuple[str, Json]]:
    for path, found in page["paths"].items():
        for method, operation in found.items():
            yield f"{method} {path}", operation


def described(page: Json, schema: Json) -> Json:
    """The schema of an answer, or of one row of it."""
    while "$ref" in schema or schema.get("type") == "array":
        schema = (
            page["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema["items"]
        )
    return schema


def has_example(page: Json, content: Json) -> bool:
    return "example" in content or bool(described(page, content["schema"]).get("examples"))


def test_every_endpoint_says_what_it_is_for_and_shows_an_example(page: Json) -> None:
    found = dict(operations(page))
    assert len(found) > 40
    for name, operation in found.items():
        assert operation["summary"], name
        assert operation["description"], name
        answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert answers, name
        for kind, content in [pair for answer in answers for pair in answer["content"].items()]:
            assert content["schema"], name
            assert kind == PARQUET or has_example(page, content), name
        for content in operation.get("requestBody", {"content": {}})["content"].values():
            assert has_example(page, content), name
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (name, parameter["name"])
        assert all(answer["description"] for answer in operation["responses"].values()), name


def schemas(part: Any) -> Iterator[Json]:
    """Every schema of an object within a part of the page."""
    if isinstance(part, dict):
        if "properties" in part and isinstance(part["properties"], dict):
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from schemas(each)


def test_every_field_says_what_it_is(page: Json) -> None:
    """Whoever reads an answer needs its units, and when a field is null, which its name and type do not say."""
    found = list(schemas({"paths": page["paths"], "components": page["components"]}))
    fields = [(schema.get("title"), name, field) for schema in found for name, field in schema["properties"].items()]
    assert len(fields) > 300
    assert [(title, name) for title, name, field in fields if not field.get("description")] == []
    beside = [schema["additionalProperties"] for schema in found if schema.get("additionalProperties")]
    assert len(beside) >= 6
    assert all(isinstance(each, dict) and each.get("description") for each in beside)


ORDER = re.compile(r"\b(newest first|oldest first|in (the )?order|in rank order|by \w+)\b")


def test_every_list_says_its_order(page: Json) -> None:
    lists = {
        name: operation["description"]
        for name, operation in operations(page)
        for content in operation["responses"].get("200", {}).get("content", {}).values()
        if content["schema"].get("type") == "array"
    }
    assert len(lists) > 20
    assert [name for name, description in lists.items() if not ORDER.search(description)] == []


def types() -> dict[str, Any]:
    names = [f"{report.__name__}.{each.name}" for each in pkgutil.iter_modules(report.__path__)]
    found = {
        name: value
        for module in map(importlib.import_module, names)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel)
    }
    return {**found, "RetainingEmission": RetainingEmission}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_its_type_allows_and_gives(name: str) -> None:
    adapter = TypeAdapter(types()[name])
    read = adapter.validate_python(EXAMPLES[name])
    given = json.loads(adapter.dump_json(read))
    if name in ("RoundFeatures", "RoundTruth", "BackfillOrder"):
        assert set(given) == set(EXAMPLES[name])
    else:
        assert given == EXAMPLES[name]


LIMITS = {
    "/reports/diversity": 50,
    "/reports/feeds/tail": 20,
    "/reports/snapshots": 100,
    "/reports/ensemble/history": 100,
    "/reports/checkpoints": 20,
    "/reports/checkpoints/rewards": 20,
    "/reports/merkle/cycles": 50,
}


def test_a_list_is_as_long_as_the_contract_says_where_nobody_says_how_long(page: Json) -> None:
    for path, default in LIMITS.items():
        (limit,) = [each for each in page["paths"][path]["get"]["parameters"] if each["name"] == "limit"]
        bounds = limit["schema"]
        assert (bounds["default"], bounds["minimum"], bounds["maximum"]) == (default, 1, 1000), path
