"""The sums that a leaderboard's windows are means of: read from the snapshots, or kept up as time moves on.

A window of h hours as of a moment t holds the snapshots with period_end in (t - h, t]. Sums are exact, so that what is
kept up by adding what entered and taking away what left is the same as what is read anew, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import Row, text
from sqlmodel import Session

from coordinator_node.crunch_config import Aggregation

# A row for each model and scope; the scope is NULL for all of a model's together. What others wrote has none of the
# counts in meta, and its meta may hold anything, so only this version's own is read. Each span is asked for by itself:
# only so does the database see how few rows it holds.
_SUMS = """
    SELECT counted.period_end, counted.model_id, part.scope_key,
           sum(CASE WHEN jsonb_typeof(part.value) = 'number'
                    THEN CAST(part.value AS numeric) * part.weight END) AS total,
           sum(CASE WHEN jsonb_typeof(part.value) = 'number' THEN part.weight END) AS weight,
           sum(part.missing) AS missing
    FROM (
        SELECT CASE WHEN :by_end THEN period_end END AS period_end, model_id, prediction_count, result_summary_jsonb,
               CASE WHEN cycle_id IS NOT NULL THEN meta_jsonb END AS meta
        FROM snapshots WHERE period_end > :after AND period_end <= :until AND superseded_by IS NULL /* among */
    ) AS counted
    CROSS JOIN LATERAL (
        SELECT NULL AS scope_key, counted.result_summary_jsonb -> :field AS value,
               counted.prediction_count AS weight, CAST(counted.meta ->> 'missing_count' AS bigint) AS missing
        UNION ALL
        SELECT scope.key, scope.value -> 'value', CAST(scope.value ->> 'prediction_count' AS bigint),
               CAST(scope.value ->> 'missing_count' AS bigint)
        FROM jsonb_each(counted.meta -> 'scopes') AS scope
    ) AS part
    GROUP BY counted.period_end, counted.model_id, part.scope_key
"""
_READ = text(_SUMS)
_READ_AMONG = text(_SUMS.replace("/* among */", "AND id = ANY(CAST(:ids AS text[]))"))

READ_ANEW_AFTER = timedelta(hours=1)
"""Sums that are kept up are read anew so often, so that rows which somebody changed by hand come right again."""

_LONGEST_HOURS = 24 * 365 * 1000


class Sums(NamedTuple):
    """`total` is the sum of values times their predictions, `weight` that of these predictions.

    `missing` is how many predictions failed or were absent.
    """

    total: Fraction = Fraction(0)
    weight: int = 0
    missing: int = 0

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(self.total + other.total, self.weight + other.weight, self.missing + other.missing)

    def minus(self, other: Sums) -> Sums:
        """What is left without a part of it."""
        return Sums(self.total - other.total, self.weight - other.weight, self.missing - other.missing)

    def mean(self, missing_score: float | None) -> float | None:
        """The weighted mean, rounded once to the nearest float; None where it is of nothing, or beyond the largest.

        `missing_score` is what each missing prediction counts as; None leaves them out.
        """
        total, weight = self.total, self.weight
        if missing_score is not None:
            total += Fraction(str(missing_score)) * self.missing
            weight += self.missing
        try:
            return float(total / weight) if weight else None
        except OverflowError:
            return None


type PartKey = tuple[str, str | None]
"""(model id, scope_key); the scope is None for all of a model's together."""

type PartSums = dict[PartKey, Sums]

type WindowSums = dict[str, PartSums]
"""By the name of the window."""


def read_window_sums(session: Session, aggregation: Aggregation, as_of: datetime) -> WindowSums:
    """The sums of all windows as of a moment. Each snapshot is read once, however many windows hold it."""
    starts = window_starts(aggregation, as_of)
    sums: WindowSums = {name: {} for name in starts}
    for begin, end in pairwise([*sorted(set(starts.values())), as_of]):
        part = _read(session, aggregation.value_field, begin, end)
        for name in (name for name, start in starts.items() if start <= begin):
            _add(sums[name], part)
    return sums


class RunningWindowSums:
    """The same sums, kept in memory by whoever writes the snapshots and brought up to date by what changed since.

    Bringing them up to date costs the snapshots that entered or left a window, however many it holds.
    """

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation
        self.forget()

    def forget(self) -> None:
        """Read anew next time: after a failure, or when another process may have written snapshots."""
        self._as_of: datetime | None = None
        self._read_at: datetime | None = None
        self._sums: WindowSums = {}
        self._written: list[str] = []

    def written(self, snapshot_ids: Iterable[str]) -> None:
        """Take note of snapshots that were committed."""
        self._written.extend(snapshot_ids)

    def as_of(self, session: Session, moment: datetime) -> WindowSums:
        """The sums as of a moment; whoever asks must not change them, and must call `forget` if the transaction fails.

        A moment before the last one is answered, too, by reading anew.
        """
        before, read_at = self._as_of, self._read_at
        if before is None or read_at is None or moment < before or moment - read_at >= READ_ANEW_AFTER:
            self._sums = read_window_sums(session, self._aggregation, moment)
            self._read_at = moment
        else:
            self._add_late(session, before)
            self._advance(session, before, moment)
        self._as_of, self._written = moment, []
        return self._sums

    def _advance(self, session: Session, before: datetime, moment: datetime) -> None:
        field = self._aggregation.value_field
        entered = _read(session, field, before, moment)
        left_from, left_until = window_starts(self._aggregation, before), window_starts(self._aggregation, moment)
        for name, sums in self._sums.items():
            _add(sums, entered)
            _take_away(sums, _read(session, field, left_from[name], left_until[name]))

    def _add_late(self, session: Session, before: datetime) -> None:
        """Add the snapshots that were written since, of what had ended before."""
        starts = window_starts(self._aggregation, before)
        if not self._written or not starts:
            return
        values = {"field": self._aggregation.value_field, "ids": self._written, "by_end": True}
        span = {"after": min(starts.values()), "until": before}
        for row in session.connection().execute(_READ_AMONG, values | span):
            for name, start in starts.items():
                if row.period_end > start:
                    _add(self._sums[name], {(row.model_id, row.scope_key): _sums_in(row)})


def window_starts(aggregation: Aggregation, as_of: datetime) -> Mapping[str, datetime]:
    """The moment after which each window begins."""
    return {name: hours_before(as_of, window.hours) for name, window in aggregation.windows.items()}


def hours_before(moment: datetime, hours: int) -> datetime:
    """So many hours before a moment, or the first moment there is."""
    try:
        return moment - timedelta(hours=min(hours, _LONGEST_HOURS))
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _read(session: Session, field: str, after: datetime, until: datetime) -> PartSums:
    """The sums of the snapshots whose period_end is in (after, until]."""
    values = {"field": field, "after": after, "until": until, "by_end": False}
    rows = session.connection().execute(_READ, values)
    return {(row.model_id, row.scope_key): _sums_in(row) for row in rows}


def _sums_in(row: Row[tuple[Any, ...]]) -> Sums:
    return Sums(Fraction(row.total or 0), int(row.weight or 0), int(row.missing or 0))


def _add(sums: PartSums, part: PartSums) -> None:
    for key, added in part.items():
        sums[key] = sums.get(key, Sums()).plus(added)


def _take_away(sums: PartSums, part: PartSums) -> None:
    for key, left in part.items():
        sums[key] = sums.get(key, Sums()).minus(left)
        if sums[key] == Sums():
            del sums[key]
