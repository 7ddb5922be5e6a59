"""Values of an operator's type, made from its JSON schema, so that a dry run has something to score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from coordinator_node.entities.errors import RAISED_BY_CALLABLES

type Schema = dict[str, Any]
type Placing = Callable[[int, int, float, float], float]
"""Where the number at a place of so many stands between a lower and an upper bound."""

DEEPEST = 8
"""A type that refers to itself is followed so far."""

DECADES = 3.0
"""A number without a bound is up to so many powers of ten away from 0, or from the bound that it has."""


def samples_of(model: type[BaseModel], most: int = 12) -> list[dict[str, Any]]:
    """Different JSON objects that a type accepts, at most so many; [] where none could be made.

    Its schema's own `examples` come first, so that a type with a rule that no schema states may bring some:
    `model_config = ConfigDict(json_schema_extra={"examples": [{...}]})`.
    """
    try:
        schema = model.model_json_schema()
    except RAISED_BY_CALLABLES:  # a type of the operator's that has no schema
        return []
    given = [each for each in schema.get("examples", []) if isinstance(each, dict)]
    made: list[dict[str, Any]] = []
    for candidate in [*given, *(_Maker(schema, placing).made() for placing in PLACINGS)]:
        if candidate not in made and _accepts(model, candidate):
            made.append(candidate)
    return made[:most]


def _accepts(model: type[BaseModel], candidate: Any) -> bool:
    try:
        model.model_validate(candidate)
    except RAISED_BY_CALLABLES:  # not valid; an operator's validators may raise anything
        return False
    return isinstance(candidate, dict)


def _at(share: float) -> Placing:
    """Every number at the same share of the way between its bounds."""
    return lambda _place, _count, low, high: _between(low, high, share)


def _from_to(first: float, last: float) -> Placing:
    """Numbers evenly from one share of the way to another."""
    return lambda place, count, low, high: _between(low, high, first + (last - first) * place / max(count - 1, 1))


def _equal_shares(_place: int, count: int, _low: float, _high: float) -> float:
    return 1 / count


def _rising_shares(place: int, count: int, _low: float, _high: float) -> float:
    return 2 * (place + 1) / (count * (count + 1))


def _falling_shares(place: int, count: int, low: float, high: float) -> float:
    return _rising_shares(count - 1 - place, count, low, high)


# The rising ones suit quantiles, the shares weights and probabilities.
PLACINGS: tuple[Placing, ...] = (
    *(_at(share) for share in (0.9, 0.1, 0.5, 0.7, 0.3)),
    _from_to(0.1, 0.9),
    _from_to(0.9, 0.1),
    _from_to(0.3, 0.6),
    _from_to(0.7, 0.4),
    _equal_shares,
    _rising_shares,
    _falling_shares,
)


def _between(low: float, high: float, share: float) -> float:
    """A number with few digits, so that it reads well in what is found."""
    return float(f"{_exactly_between(low, high, share):.6g}")


def _exactly_between(low: float, high: float, share: float) -> float:
    if math.isfinite(low) and math.isfinite(high):
        return low + share * (high - low)
    if math.isfinite(low):
        return low + 10 ** (DECADES * share) - 1
    if math.isfinite(high):
        return high - 10 ** (DECADES * (1 - share)) + 1
    away = 2 * share - 1
    return math.copysign(10 ** (DECADES * abs(away)) - 1, away)


@dataclass
class _Maker:
    """Makes one value of a schema; numbers are counted first, so that each can be placed among all."""

    schema: Schema
    placing: Placing
    _count: int = field(default=0, init=False)
    _place: int = field(default=0, init=False)

    def made(self) -> Any:
        self._value(self.schema, 0)
        self._count, self._place = max(self._place, 1), 0
        return self._value(self.schema, 0)

    def _value(self, schema: Schema, depth: int) -> Any:
        schema = self._resolved(schema)
        if depth > DEEPEST:
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self._choice(len(schema["enum"]))]
        kind = schema.get("type")
        if kind in ("number", "integer"):
            return self._number(schema, whole=kind == "integer")
        if kind == "boolean":
            return self._choice(2) == 1
        if kind == "array":
            return self._array(schema, depth)
        if kind == "object" or "properties" in schema:
            return self._object(schema, depth)
        return _text(schema) if kind == "string" else None

    def _resolved(self, schema: Schema) -> Schema:
        """The schema behind references and choices; of several types, the first that is not null."""
        for _ in range(DEEPEST):
            options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            if "$ref" in schema:
                schema = self.schema.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
            elif options:
                schema = next((each for each in options if each.get("type") != "null"), options[0])
            else:
                break
        return schema

    def _next(self, low: float, high: float) -> float:
        self._place += 1
        return self.placing(self._place - 1, max(self._count, self._place), low, high)

    def _choice(self, count: int) -> int:
        return min(max(int(self._next(0.0, float(count))), 0), count - 1)

    def _number(self, schema: Schema, *, whole: bool) -> float:
        low, high = _bounds(schema, ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
        number = self._next(low, high)
        step = schema.get("multipleOf")
        if step:
            number = round(number / step) * step
        return round(number) if whole else number

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        items = [self._value(each, depth + 1) for each in schema.get("prefixItems", [])]
        # Deep down a list is left empty where it may be, so that what refers to itself comes to an end.
        least = 1 if depth < DEEPEST // 2 else 0
        missing = max(schema.get("minItems", 0), least) - len(items)
        item = schema.get("items")
        return items + [self._value(item, depth + 1) for _ in range(missing) if isinstance(item, dict)]

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        made = {name: self._value(each, depth + 1) for name, each in schema.get("properties", {}).items()}
        others = schema.get("additionalProperties")
        if not made and isinstance(others, dict):
            return {name: self._value(others, depth + 1) for name in ("first", "second")}
        return made


def _bounds(schema: Schema, lows: Sequence[str], highs: Sequence[str]) -> tuple[float, float]:
    low = max((float(schema[name]) for name in lows if name in schema), default=-math.inf)
    high = min((float(schema[name]) for name in highs if name in schema), default=math.inf)
    return low, high


def _text(schema: Schema) -> str:
    formats = {"date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01", "time": "00:00:00Z"}
    made = formats.get(schema.get("format", ""), "sample")
    return made.ljust(schema.get("minLength", 0), "e")[: schema.get("maxLength", len(made) + 1000)]
