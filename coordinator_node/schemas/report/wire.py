"""Types that several answers share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from coordinator_node.entities.times import as_utc

JsonObject = dict[str, Any]
Number = int | float


def _with_offset(value: datetime) -> str:
    return as_utc(value).isoformat()


def _without_offset(value: datetime) -> str:
    return as_utc(value).replace(tzinfo=None).isoformat()


UtcTime = Annotated[
    datetime,
    PlainSerializer(_with_offset, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00+00:00"]}),
]
"""An instant, in UTC with its offset."""

NaiveUtcTime = Annotated[
    datetime,
    # For who reads an answer: in Python the instant is aware again.
    AfterValidator(as_utc),
    PlainSerializer(_without_offset, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2026-01-31T12:00:00"]}),
]
"""An instant in UTC without offset: the x of a chart, to which the web app appends the Z itself."""


AND_NUMBERS = ConfigDict(
    extra="allow",
    json_schema_extra={
        "additionalProperties": {"type": ["number", "null"], "description": "A number by its name; null if undefined."}
    },
)
"""Of rows that hold metrics and means beside their own fields."""


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="What is wrong, in a sentence.")


class InputFault(BaseModel):
    """One wrong parameter or field of the body."""

    loc: list[str | int] = Field(
        description="Where: path, query, header or body, then the names or indexes down to it."
    )
    msg: str = Field(description="What is wrong with it.")
    type: str = Field(description="The kind of fault, for programs.")


class InputProblem(BaseModel):
    """Every fault of a request's parameters and body."""

    detail: list[InputFault] | str = Field(description="Each fault; or one sentence about them together.")


def object_or_empty(value: Any) -> JsonObject:
    """A stored document that must be an object; {} for NULL and for what older rows may hold instead."""
    return value if isinstance(value, dict) else {}


def number_or_none(value: Any) -> Number | None:
    """The value if it is a number; None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def of_type[T](value: Any, wanted: type[T]) -> T | None:
    """The value if it is of that type; None for anything else, and for true and false, which are ints to Python."""
    return value if isinstance(value, wanted) and not isinstance(value, bool) else None


def list_or_empty(value: Any) -> list[Any]:
    """A stored document that must be a list; [] for NULL and for what older rows may hold instead."""
    return value if isinstance(value, list) else []
