"""Parameters that several endpoints take: what they accept, and what is a fault of the request's."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BeforeValidator

from coordinator_node.api.auth import PARAMETER
from coordinator_node.api.context import Context
from coordinator_node.entities.times import as_utc

DEFAULT_RANGE = timedelta(days=7)

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_LOST_PLUS = re.compile(r"^(\d{4}-\d\d-\d\d[T ]\S+) (\d\d:?\d\d)$")


def _plain(value: str) -> str:
    """Text that a database column can hold."""
    if "\x00" in value:
        raise ValueError("must not hold a NUL character")
    return value


def _restore_plus(value: object) -> object:
    """A plus sign stands for a space in a query; before an offset it can only have been meant as itself."""
    return _LOST_PLUS.sub(r"\1+\2", value) if isinstance(value, str) else value


def _instant(value: datetime) -> datetime:
    """The same instant in UTC, a naive one read as UTC."""
    try:
        instant = as_utc(value)
    except OverflowError:
        instant = None
    if instant is None or not _EARLIEST <= instant < _LATEST:
        raise ValueError(f"must be from {_EARLIEST:%Y-%m-%d} to before {_LATEST:%Y-%m-%d}")
    return instant


MAY_REPEAT = frozenset({"projectIds", PARAMETER})


async def _each_once(request: Request) -> None:
    """Refuse a parameter that is given twice: which of the two was meant cannot be known.

    Raises:
        RequestValidationError: names each such parameter.
    """
    given = Counter(name for name, _ in request.query_params.multi_items())
    repeated = sorted(name for name, times in given.items() if times > 1 and name not in MAY_REPEAT)
    if repeated:
        message = "may be given only once"
        raise RequestValidationError(
            [{"type": "repeated", "loc": ("query", name), "msg": message} for name in repeated]
        )


EACH_ONCE = Depends(_each_once)

Text = Annotated[str, AfterValidator(_plain)]
Source = Annotated[Text | None, Query(description="Where a feed comes from; all when left out.")]
Subject = Annotated[Text | None, Query(description="What a feed is about; all when left out.")]
Kind = Annotated[Text | None, Query(description="tick, candle, depth or funding; all when left out.")]
Granularity = Annotated[Text | None, Query(description="From one record to the next, as 1s or 1m; all when left out.")]
ModelId = Annotated[Text | None, Query(description="One model's id; all when left out.")]
WithEnsembles = Annotated[bool, Query(description="Whether ensembles are shown too; one that projectIds names is.")]
CheckpointId = Annotated[Text, Path(description="A checkpoint's id.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="The most rows to answer.")]
Instant = Annotated[datetime, BeforeValidator(_restore_plus), AfterValidator(_instant)]


@dataclass(frozen=True)
class TimeRange:
    """A span of time, both ends included; None where that end is open."""

    start: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class ClosedRange:
    """A span of time, both ends included."""

    start: datetime
    end: datetime


async def _last_days(
    context: Context,
    start: Annotated[Instant | None, Query(description="Default: 7 days before `end`. Naive is UTC.")] = None,
    end: Annotated[Instant | None, Query(description="Default: now. Naive is UTC.")] = None,
) -> ClosedRange:
    end = end or context.clock()
    start = start or end - DEFAULT_RANGE
    _check_order(start, end, "start", "end")
    return ClosedRange(start, end)


async def _since_until(
    since: Annotated[Instant | None, Query(description="Open when left out. Naive is UTC.")] = None,
    until: Annotated[Instant | None, Query(description="Open when left out. Naive is UTC.")] = None,
) -> TimeRange:
    if since is not None and until is not None:
        _check_order(since, until, "since", "until")
    return TimeRange(since, until)


async def _model_ids(
    project_ids: Annotated[
        list[Text] | None,
        Query(alias="projectIds", description="Model ids; may repeat, and may hold commas. All when left out."),
    ] = None,
) -> list[str] | None:
    names = [name.strip() for part in project_ids or [] for name in part.split(",")]
    return [name for name in dict.fromkeys(names) if name] or None


LastDays = Annotated[ClosedRange, Depends(_last_days)]
SinceUntil = Annotated[TimeRange, Depends(_since_until)]
ModelIds = Annotated[list[str] | None, Depends(_model_ids)]


def _check_order(first: datetime, last: datetime, first_name: str, last_name: str) -> None:
    if last < first:
        raise HTTPException(422, f"{last_name} ({last.isoformat()}) is before {first_name} ({first.isoformat()})")
