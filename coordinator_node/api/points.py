"""What the rows of charts have in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from coordinator_node.metrics.values import as_number
from coordinator_node.schemas.report.wire import number_or_none


def naive_text(moment: datetime) -> str:
    """The x of a chart: UTC without offset."""
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00")


def offset_text(moment: datetime | None) -> str | None:
    """An instant anywhere else: UTC with its offset."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


def flat(scope: Mapping[str, Any], scope_key: str | None, horizon: Any) -> dict[str, Any]:
    """What charts are filtered by, of one scope; null for what it does not say."""
    subject = scope.get("subject")
    return {
        "subject": None if subject is None else str(subject),
        "asset": None if subject is None else str(subject),
        "horizon": number_or_none(horizon),
        "param": scope_key,
        "step": number_or_none(scope.get("step_seconds")),
    }


_NUMBERS = frozenset({int, float})


def numbers(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a summary that was parsed from JSON, and what is null in it."""
    return {
        name: None if value is None else as_number(value)
        for name, value in summary.items()
        if value is None or type(value) in _NUMBERS
    }
