"""Column types, stated once. SQLModel alone would leave nullability, zones and JSONB to defaults."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, ForeignKey, String
from sqlalchemy.dialects.postgresql import JSONB


def text(
    *, null: bool = False, key: bool = False, references: str | None = None, default: str | None = None
) -> Column[Any]:
    """A text column; `references` names `table.column`, `default` is the server's."""
    foreign = [ForeignKey(references)] if references else []
    return Column(String, *foreign, primary_key=key, nullable=null and not key, server_default=default)


def timestamp(*, null: bool = False) -> Column[Any]:
    """An instant: timestamptz."""
    return Column(DateTime(timezone=True), nullable=null)


def jsonb() -> Column[Any]:
    """A JSON document; SQL NULL for None, as older rows have it."""
    return Column(JSONB(none_as_null=True), nullable=True)


def one_of(column: str, values: type[Any]) -> str:
    """A CHECK's condition that a column holds a value of an enum."""
    return f"{column} IN ({', '.join(repr(member.value) for member in values)})"
