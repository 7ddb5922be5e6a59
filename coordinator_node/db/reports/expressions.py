"""Conditions and expressions that several reports share."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import Numeric, and_, case, func
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB
from sqlalchemy.orm import Mapped
from sqlalchemy.sql.elements import ColumnElement

from coordinator_node.entities.ensemble import ENSEMBLE_PREFIX, ENSEMBLE_SUFFIX

# JSONB holds numbers that no double can; beyond this a cast, or a sum of many, would fail the statement.
LARGEST = Decimal(10**300)


IS_REAL_MODEL = (
    f"NOT (starts_with({{0}}, '{ENSEMBLE_PREFIX}') AND right({{0}}, {len(ENSEMBLE_SUFFIX)}) = '{ENSEMBLE_SUFFIX}')"
)
"""Whether a model is no ensemble, as SQL; `format` puts in the column with its id."""


def is_ensemble(model_id: Mapped[str]) -> ColumnElement[bool]:
    """Whether a model's id is that of an ensemble's virtual model."""
    return and_(
        model_id.startswith(ENSEMBLE_PREFIX, autoescape=True), model_id.endswith(ENSEMBLE_SUFFIX, autoescape=True)
    )


def number_in(document: Any, key: str) -> ColumnElement[float | None]:
    """The number at `key` of a JSONB document as a double; NULL for what is no number or fits none."""
    value = document[key]
    as_numeric = value.astext.cast(Numeric)
    fits = case((func.jsonb_typeof(value.cast(JSONB)) == "number", func.abs(as_numeric) <= LARGEST), else_=False)
    return case((fits, value.astext.cast(DOUBLE_PRECISION)))
