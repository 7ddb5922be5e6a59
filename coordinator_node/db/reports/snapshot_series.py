"""Series over snapshots: how the models stood over time, and what the snapshots held; of those scored again the newest.

A window of h hours as of a moment t is what `services.ranking` says: the mean of the value_field, weighted by
prediction_count, over the snapshots with period_end in (t - h, t]. The sums are exact and divided once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import Connection, text

from coordinator_node.crunch_config import Aggregation
from coordinator_node.db.json_text import parse_object
from coordinator_node.db.reports.expressions import IS_REAL_MODEL
from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.db.reports.widths import MOST_POINTS, MOST_POINTS_READ, MOST_ROWS, chosen_width
from coordinator_node.db.series.buckets import bucket_end
from coordinator_node.db.series.mark import kept_span
from coordinator_node.db.series.snapshot_sums import (
    counts,
    kept_scopes,
    kept_windows,
    merged_counts,
    merged_named_sums,
    merged_numbers,
    named_sums,
    number_sums,
    scope_parts,
    window_parts,
)
from coordinator_node.db.series.spans import (
    EPOCH,
    LEVELS,
    MICROSECOND,
    Cover,
    Span,
    bounded,
    coarsest_level,
    cover,
    joined,
    kept_buckets,
    mostly_kept,
)


@dataclass(frozen=True)
class SnapshotQuestion:
    """Which snapshots are asked for: period_end from `start` to `end`, both included.

    `model_ids` None means every model; of ensembles only with `include_ensembles`. Named ones are always shown. A
    standing shows the summary of no snapshot that is older than `metrics_window_hours`, as the leaderboard does.
    """

    start: datetime
    end: datetime
    model_ids: Sequence[str] | None
    include_ensembles: bool
    aggregation: Aggregation
    metrics_window_hours: int

    @property
    def span(self) -> Span:
        """(begin, end], as buckets of snapshots are."""
        return Span(self.start - MICROSECOND, self.end)

    def among(self, column: str, values: Record) -> str:
        """The SQL condition on a model's id."""
        if self.model_ids is not None:
            values["model_ids"] = list(self.model_ids)
            return f"{column} = ANY(CAST(:model_ids AS text[]))"
        return "true" if self.include_ensembles else IS_REAL_MODEL.format(column)


def standings_over_time(connection: Connection, question: SnapshotQuestion, *, by_scope: bool) -> list[Record]:
    """How each model stood, by time, then model and scope.

    A row holds model_id, scope_key ('' unless `by_scope`), as_of, each window by its place (`mean_0`…, None
    where there is nothing in it), and `summary`, the model's latest summary as of then as JSON text, None where it is
    too old. There is a row for
    each moment at which a snapshot ended, if no series has more than MOST_POINTS of them and all fit MOST_ROWS; else
    one for each bucket with a snapshot in it, as of the bucket's end or the question's, whichever is first.
    """
    kept = kept_span(connection, question.aggregation.value_field)

    def standings(width: timedelta | None) -> list[Record]:
        return _standings(connection, question, kept, width, by_scope=by_scope)

    if _single_rows_fit(connection, question, by_scope=by_scope):
        return standings(None)
    return _in_few_buckets(connection, question, kept, standings, by_scope=by_scope)


def _standings(
    connection: Connection, question: SnapshotQuestion, kept: Span | None, width: timedelta | None, *, by_scope: bool
) -> list[Record]:
    """The standings by buckets of a width; of None by the moments at which snapshots ended."""
    values: Record = {
        "value_field": question.aggregation.value_field,
        "limit": MOST_ROWS,
        "end": question.end,
        "metrics_window": timedelta(hours=min(question.metrics_window_hours, _LONGEST_HOURS)),
    }
    if width is not None:
        values["width"] = width
    statement = _STANDINGS.format(
        pieces=_pieces(question, kept, width, values, by_scope=by_scope),
        as_of="ends_at" if width is None else f"least({bucket_end('ends_at', ':width')}, :end)",
        windows=", ".join(_mean(place, question.aggregation) for place in range(len(question.aggregation.windows))),
        doubles=", ".join(_double(place) for place in range(len(question.aggregation.windows))),
        frames=_frames(question.aggregation),
        comma="," if question.aggregation.windows else "",
        summary="" if by_scope else _LATEST,
        summary_column="NULL" if by_scope else "CAST(COALESCE(stood.latest, found.result_summary_jsonb) AS text)",
        frame_word="WINDOW" if question.aggregation.windows else "",
    )
    return fetch(connection, text(statement), values | {"begin": question.span.begin})[::-1]


def snapshots_over_time(connection: Connection, question: SnapshotQuestion) -> list[Record]:
    """The snapshots one by one, or by bucket where there are many: by time, then model.

    A row holds model_id, period_start, period_end, prediction_count and `numbers`: a snapshot's summary, or the means
    of a bucket's numbers weighted by prediction_count (at least 1).
    """
    if _single_rows_fit(connection, question, by_scope=False):
        values: Record = {"limit": MOST_ROWS}
        inside = bounded("period_end", [question.span], values, ends_belong=True)
        among = question.among("model_id", values)
        return _parsed(fetch(connection, text(_SINGLE.format(condition=f"{inside} AND {among}")), values)[::-1])
    kept = kept_span(connection, question.aggregation.value_field)
    return _in_few_buckets(
        connection, question, kept, lambda width: _sums(connection, question, kept, width), by_scope=False
    )


def _sums(connection: Connection, question: SnapshotQuestion, kept: Span | None, width: timedelta) -> list[Record]:
    """The snapshots' means by buckets of a width.

    To take JSON apart number by number takes several times as long as to look for names that are known: those of the
    newest summaries. Where some summary has others, all are taken apart after all.
    """
    values: Record = {"limit": MOST_ROWS, "width": width}
    parts = cover(question.span, (), kept, coarsest_level(width.total_seconds()))
    among = question.among("model_id", values)
    in_rows = f"{bounded('period_end', parts.rows, values, ends_belong=True)} AND {among}"
    in_kept = f"{kept_buckets('ends_at', parts.kept, values, ends_belong=True)} AND {among}"
    of_rows, of_kept = bucket_end("period_end", ":width"), bucket_end("ends_at", ":width")
    names = _newest_names(connection, question)
    if 0 < len(names) <= MOST_NAMES:
        known = dict(values)
        summed = f"{named_sums(of_rows, in_rows, names, known)} UNION ALL {merged_named_sums(of_kept, in_kept, names)}"
        means = ", ".join(_KNOWN_MEAN.format(place=place) for place in range(len(names)))
        rows = fetch(connection, text(_KNOWN.format(summed=summed, means=means)), known)[::-1]
        if not any(row["incomplete"] for row in rows):
            return [_with_means(row, names) for row in rows]
    statement = _BUCKETED.format(
        counts=f"{counts(of_rows, in_rows)} UNION ALL {merged_counts(of_kept, in_kept)}",
        numbers=f"{number_sums(of_rows, in_rows)} UNION ALL {merged_numbers(of_kept, in_kept)}",
    )
    return _parsed(fetch(connection, text(statement), values)[::-1])


def _with_means(row: Record, names: Sequence[str]) -> Record:
    means = {name: row[f"mean_{place}"] for place, name in enumerate(names)}
    row["numbers"] = {name: mean for name, mean in means.items() if mean is not None}
    return row


def _parsed(rows: list[Record]) -> list[Record]:
    for row in rows:
        row["numbers"] = parse_object(row["numbers"])
    return rows


def _newest_names(connection: Connection, question: SnapshotQuestion) -> list[str]:
    """The keys of the newest summaries: those of all, as a rule."""
    values: Record = {"some": MOST_POINTS}
    statement = _NAMES.format(condition=_inside(question, values, by_scope=False))
    return [row["name"] for row in fetch(connection, text(statement), values)]


def latest_snapshots(connection: Connection, question: SnapshotQuestion) -> list[Record]:
    """The latest snapshot of each model in the question's span, by model id; the rows are those of single snapshots."""
    values: Record = {"limit": MOST_ROWS}
    inside = bounded("period_end", [question.span], values, ends_belong=True)
    statement = _LATEST_OF_EACH.format(among=question.among("models.id", values), inside=inside)
    return _parsed(fetch(connection, text(statement), values))


def _single_rows_fit(connection: Connection, question: SnapshotQuestion, *, by_scope: bool) -> bool:
    """Whether single rows do for the answer; nothing beyond their number is looked at."""
    values: Record = {"limit": MOST_ROWS + 1}
    statement = _COUNTED.format(
        scope=_SCOPES if by_scope else "''", condition=_inside(question, values, by_scope=by_scope)
    )
    (found,) = fetch(connection, text(statement), values)
    return bool(found["longest"] <= MOST_POINTS and found["total"] <= MOST_ROWS)


def _in_few_buckets(
    connection: Connection,
    question: SnapshotQuestion,
    kept: Span | None,
    answer: Callable[[timedelta], list[Record]],
    *,
    by_scope: bool,
) -> list[Record]:
    """What `answer` gives for buckets as wide as so many series and points need.

    To count the rows takes about as long as to sum them up, so that a glance must do. Where it missed a series, which
    shows in the answer, they are counted after all.
    """
    if not mostly_kept(question.span, kept):
        glance = _glance(connection, question, by_scope=by_scope)
        rows = answer(_width(question, glance))
        series = {(row["model_id"], row.get("scope_key")) for row in rows}
        if len(series) == glance["series"] and len(rows) < MOST_ROWS:
            return rows
    return answer(_width(question, _shape(connection, question, kept, by_scope=by_scope)))


def _width(question: SnapshotQuestion, shape: Record) -> timedelta:
    if not shape["series"]:
        return timedelta(days=1)
    # Buckets end at bounds, so that what is between two of them spans one more.
    return chosen_width(question.end - max(question.start, shape["first"]), shape["series"], shape["points"])


def _glance(connection: Connection, question: SnapshotQuestion, *, by_scope: bool) -> Record:
    """What `_shape` gives, seen quickly: series are those of the newest rows, and points counted up to what matters."""
    values: Record = {"some": MOST_ROWS + 1, "many": MOST_POINTS_READ + 1}
    condition = _inside(question, values, by_scope=by_scope)
    points, scope = _SNAPSHOT_POINTS.format(condition=condition), "''"
    if by_scope:
        points, scope = _SCOPE_POINTS.format(snapshots=points, scope=_SCOPES, condition=condition), _SCOPES
    statement = _GLANCE.format(scope=scope, points=points, condition=condition)
    return fetch(connection, text(statement), values)[0]


def _inside(question: SnapshotQuestion, values: Record, *, by_scope: bool) -> str:
    """The SQL condition that a snapshot is asked for; with `by_scope` only those that count some scope."""
    inside = bounded("period_end", [question.span], values, ends_belong=True)
    condition = f"{inside} AND {question.among('model_id', values)} AND superseded_by IS NULL"
    return f"{condition} AND {_HAS_SCOPES}" if by_scope else condition


def _shape(connection: Connection, question: SnapshotQuestion, kept: Span | None, *, by_scope: bool) -> Record:
    """How many series and points there are, and since when, by the widest kept buckets that there are."""
    values: Record = {}
    parts = cover(question.span, (), kept, LEVELS[-1])
    among = question.among("model_id", values)
    in_rows = f"{bounded('period_end', parts.rows, values, ends_belong=True)} AND {among}"
    in_kept = f"{kept_buckets('ends_at', parts.kept, values, ends_belong=True)} AND {among}"
    of_kept = "CROSS JOIN LATERAL jsonb_object_keys(scopes_jsonb) AS scope_key" if by_scope else ""
    of_rows = "CROSS JOIN LATERAL jsonb_object_keys(meta_jsonb -> 'scopes') AS scope_key" if by_scope else ""
    if by_scope:
        in_rows += " AND cycle_id IS NOT NULL AND jsonb_typeof(meta_jsonb -> 'scopes') = 'object'"
    statement = _SHAPE.format(
        scope="scope_key" if by_scope else "''",
        of_kept=f"{of_kept} WHERE {in_kept}",
        of_rows=f"{of_rows} WHERE {in_rows} AND superseded_by IS NULL",
    )
    return fetch(connection, text(statement), values)[0]


def _pieces(
    question: SnapshotQuestion, kept: Span | None, width: timedelta | None, values: Record, *, by_scope: bool
) -> str:
    """The parts of the windows, ends_at, model_id, scope_key, total, weight, missing, latest, as SQL.

    `latest` is the model's latest summary as of ends_at; NULL where that has to be looked up. Parts are fine where a
    window begins or ends: single rows where every snapshot is a point. In the gaps between they are as wide as kept
    buckets come.
    """
    moving = _moving(question)
    fine = joined(moving)
    gaps = [Span(first.end, second.begin) for first, second in pairwise(fine)]
    hours = [window.hours * 3600 for window in question.aggregation.windows.values()]
    coarsest = min(coarsest_level(seconds) for seconds in [width.total_seconds() if width else 0, *hours])
    cuts = sorted({bound for span in moving for bound in span})
    values["widest"] = timedelta(seconds=coarsest)
    finely = _covered(fine, kept, coarsest, cuts)
    coarsely = _covered(gaps, kept, LEVELS[-1], cuts)
    among = question.among("model_id", values)
    in_kept = f"{kept_buckets('ends_at', [*finely.kept, *coarsely.kept], values, ends_belong=True)} AND {among}"
    of_rows, of_kept = (scope_parts, kept_scopes) if by_scope else (window_parts, kept_windows)
    own_bucket = "period_end" if width is None else bucket_end("period_end", ":width")
    columns = "ends_at, model_id, scope_key, total, weight, missing"
    named = columns if by_scope else columns.replace("scope_key, ", "")
    taken = columns if by_scope else columns.replace("scope_key", "'' AS scope_key")
    latest = "CAST(NULL AS jsonb) AS latest"
    selects = [f"SELECT {taken}, {latest if by_scope else 'latest'} FROM ({of_kept(in_kept)}) AS kept"]  # noqa: S608 - as below
    for own_end, rows in (
        (_step(own_bucket, coarsest), finely.rows),
        (bucket_end("period_end", f"interval '{LEVELS[1]} seconds'"), coarsely.rows),
    ):
        if rows:
            inside = f"{bounded('period_end', rows, values, ends_belong=True)} AND {among}"
            parts = of_rows(_cut(own_end, cuts, values), inside)
            selects.append(f"SELECT {taken}, {latest} FROM ({parts}) AS parts ({named})")  # noqa: S608 - constants and names of parameters
    return " UNION ALL ".join(selects)


def _moving(question: SnapshotQuestion) -> list[Span]:
    """Where points lie, and where each window's begin lies as its end goes through them."""
    hours = [window.hours for window in question.aggregation.windows.values()]
    begins = [Span(_before(question.span.begin, own), _before(question.end, own)) for own in hours]
    return [question.span, *begins]


def _covered(spans: Sequence[Span], kept: Span | None, coarsest: int, cuts: Sequence[datetime]) -> Cover:
    whole = Cover([], [])
    for span in spans:
        part = cover(span, cuts, kept, coarsest)
        whole.kept.extend(part.kept)
        whole.rows.extend(part.rows)
    return whole


def _step(own_bucket: str, coarsest: int) -> str:
    """The end of the piece that a row belongs to: no wider than the kept buckets beside it."""
    return bucket_end("period_end", f"interval '{coarsest} seconds'") if coarsest else own_bucket


def _cut(own_end: str, cuts: Sequence[datetime], values: Record) -> str:
    """The same, where no piece reaches across a cut."""
    names = []
    for place, moment in enumerate(cuts):
        values[f"cut_{place}"] = moment
        names.append(f"CASE WHEN period_end <= :cut_{place} THEN :cut_{place} END")
    return f"least({', '.join([own_end, *names])})"


def _before(moment: datetime, hours: int) -> datetime:
    """So many hours before a moment; nothing is older than the epoch."""
    seconds = (moment - EPOCH).total_seconds()
    return EPOCH if hours * 3600 >= seconds else moment - timedelta(hours=hours)


def _frames(aggregation: Aggregation) -> str:
    """The frames of the windows: (t - h, t], at the resolution of the database's times.

    In microseconds, because to compare instants with intervals takes several times as long.
    """
    return ", ".join(
        f"frame_{place} AS (PARTITION BY model_id, scope_key ORDER BY microseconds RANGE BETWEEN"
        f" CAST({min(window.hours, _LONGEST_HOURS) * 3_600_000_000 - 1} AS bigint) PRECEDING AND CURRENT ROW)"
        for place, window in enumerate(aggregation.windows.values())
    )


def _mean(place: int, aggregation: Aggregation) -> str:
    total, weight = f"sum(total) OVER frame_{place}", f"sum(weight) OVER frame_{place}"
    if aggregation.missing_score is not None:
        missing = f"sum(missing) OVER frame_{place}"
        total = f"{total} + CAST('{aggregation.missing_score!r}' AS numeric) * {missing}"
        weight = f"{weight} + {missing}"
    # The zeros make the quotient so exact that the nearest double is the same as that of the exact mean.
    return f"({total} + 0.{'0' * 30}) / NULLIF({weight}, 0) AS exact_{place}"


def _double(place: int) -> str:
    """The nearest double, as SQL; NULL where none is as large."""
    return (
        f"CASE WHEN abs(exact_{place}) <= {sys.float_info.max!r} THEN CAST(exact_{place} AS double precision) END"
        f" AS mean_{place}"
    )


MOST_NAMES = 100
"""So many different numbers of summaries can be summed up in one pass over the rows."""

_LONGEST_HOURS = 24 * 365 * 500
"""Beyond this a window reaches back to before anything that is stored, whatever its end."""

# An object with something in it: in jsonb's order objects come after all else, those of more keys after those of fewer.
# To ask for its type besides would make the planner expect that hardly any row passes, and read them all.
_HAS_SCOPES = "cycle_id IS NOT NULL AND meta_jsonb -> 'scopes' > '{}'"
_SCOPES = "jsonb_object_keys(meta_jsonb -> 'scopes')"
_COUNTED = """
    SELECT COALESCE(max(points), 0) AS longest, COALESCE(sum(points), 0) AS total
    FROM (
        SELECT count(*) AS points
        FROM (
            SELECT model_id, {scope} AS scope_key
            FROM (SELECT model_id, meta_jsonb FROM snapshots WHERE {condition} LIMIT :limit) AS few
            LIMIT :limit
        ) AS seen
        GROUP BY model_id, scope_key
    ) AS series
"""
# Snapshots are limited before they are taken apart: each has a point, so that as many points are found.
_SNAPSHOT_POINTS = "(SELECT count(*) FROM (SELECT FROM snapshots WHERE {condition} LIMIT :many) AS counted)"
_SCOPE_POINTS = """
    CASE WHEN {snapshots} = :many THEN :many
         ELSE (
             SELECT count(*)
             FROM (
                 SELECT {scope} FROM (SELECT meta_jsonb FROM snapshots WHERE {condition} LIMIT :many) AS few LIMIT :many
             ) AS counted
         )
    END
"""
_GLANCE = """
    SELECT (
               SELECT count(*) FROM (
                   SELECT DISTINCT model_id, scope_key FROM (
                       SELECT model_id, {scope} AS scope_key
                       FROM (
                           SELECT model_id, meta_jsonb FROM snapshots WHERE {condition}
                           ORDER BY period_end DESC LIMIT :some
                       ) AS newest
                       LIMIT :some
                   ) AS points
               ) AS seen
           ) AS series,
           {points} AS points,
           (SELECT period_start FROM snapshots WHERE {condition} ORDER BY period_end LIMIT 1) AS first
"""
_SHAPE = """
    SELECT count(*) AS series, COALESCE(CAST(sum(points) AS bigint), 0) AS points, min(first) AS first
    FROM (
        SELECT sum(points) AS points, min(period_start) AS first
        FROM (
            SELECT model_id, {scope}, snapshots, period_start FROM snapshot_buckets {of_kept}
            UNION ALL SELECT model_id, {scope}, 1, period_start FROM snapshots {of_rows}
        ) AS pieces (model_id, scope_key, points, period_start)
        GROUP BY model_id, scope_key
    ) AS series
"""
_LATEST = """
    LEFT JOIN LATERAL (
        SELECT result_summary_jsonb FROM snapshots
        WHERE stood.latest IS NULL AND snapshots.model_id = stood.model_id AND period_end <= stood.ends_at
          AND period_end > stood.ends_at - CAST(:metrics_window AS interval)
          AND prediction_count > 0 AND superseded_by IS NULL
        ORDER BY period_end DESC, created_at DESC, id DESC LIMIT 1
    ) AS found ON true
"""
# A point is a piece of nothing at the moment of its own, so that the frames that end there are the windows as of then.
# Its latest summary is that of its last piece, if that one says, and cannot be of a snapshot that is too old.
_STANDINGS = """
    WITH pieces AS MATERIALIZED ({pieces}),
    points AS (
        SELECT DISTINCT ON (1, 2, 3) {as_of} AS ends_at, model_id, scope_key,
               CASE WHEN ends_at - CAST(:widest AS interval) >= {as_of} - CAST(:metrics_window AS interval) THEN latest
               END AS latest
        FROM pieces WHERE ends_at > :begin AND ends_at <= :end
        ORDER BY 1 DESC, 2 DESC, 3 DESC, pieces.ends_at DESC LIMIT :limit
    ),
    framed AS (
        SELECT is_point, ends_at, model_id, scope_key, latest {comma} {windows}
        FROM (
            SELECT *, CAST(extract(epoch FROM ends_at) * 1000000 AS bigint) AS microseconds
            FROM (
                SELECT false, ends_at, model_id, scope_key, COALESCE(total, 0), weight, missing, CAST(NULL AS jsonb)
                FROM pieces WHERE (model_id, scope_key) IN (SELECT model_id, scope_key FROM points)
                UNION ALL SELECT true, ends_at, model_id, scope_key, 0, 0, 0, latest FROM points
            ) AS both_kinds (is_point, ends_at, model_id, scope_key, total, weight, missing, latest)
        ) AS timed
        {frame_word} {frames}
    )
    SELECT model_id, scope_key, ends_at AS as_of {comma} {doubles}, {summary_column} AS summary
    FROM framed AS stood {summary}
    WHERE is_point
    ORDER BY stood.ends_at DESC, stood.model_id DESC, stood.scope_key DESC
"""
_SINGLE = """
    SELECT model_id, period_start, period_end, prediction_count, CAST(result_summary_jsonb AS text) AS numbers
    FROM snapshots WHERE {condition} AND superseded_by IS NULL
    ORDER BY period_end DESC, model_id DESC, created_at DESC, id DESC LIMIT :limit
"""
_NAMES = """
    SELECT DISTINCT jsonb_object_keys(
        CASE WHEN jsonb_typeof(result_summary_jsonb) = 'object' THEN result_summary_jsonb END
    ) AS name
    FROM (
        SELECT result_summary_jsonb FROM snapshots WHERE {condition} ORDER BY period_end DESC LIMIT :some
    ) AS newest
"""
_KNOWN_MEAN = "CAST(sum(total_{place}) / NULLIF(sum(weight_{place}), 0) AS double precision) AS mean_{place}"
_KNOWN = """
    WITH summed AS MATERIALIZED ({summed})
    SELECT model_id, CAST(sum(prediction_count) AS bigint) AS prediction_count, min(period_start) AS period_start,
           max(period_end) AS period_end, EXISTS (SELECT FROM summed WHERE others > 0) AS incomplete, {means}
    FROM summed GROUP BY ends_at, model_id
    ORDER BY max(period_end) DESC, model_id DESC LIMIT :limit
"""
_BUCKETED = """
    SELECT counted.*, CAST(numbers.numbers AS text) AS numbers
    FROM (
        SELECT ends_at, model_id, CAST(sum(prediction_count) AS bigint) AS prediction_count,
               min(period_start) AS period_start, max(period_end) AS period_end
        FROM ({counts}) AS parts (ends_at, model_id, snapshots, prediction_count, period_start, period_end)
        GROUP BY ends_at, model_id
        ORDER BY max(period_end) DESC, model_id DESC LIMIT :limit
    ) AS counted
    LEFT JOIN (
        SELECT ends_at, model_id, jsonb_object_agg(name, mean) AS numbers
        FROM (
            SELECT ends_at, model_id, name, sum(total) / sum(weight) AS mean
            FROM ({numbers}) AS parts (ends_at, model_id, name, total, weight) GROUP BY ends_at, model_id, name
        ) AS means GROUP BY ends_at, model_id
    ) AS numbers USING (ends_at, model_id)
    ORDER BY counted.period_end DESC, counted.model_id DESC
"""
_LATEST_OF_EACH = """
    SELECT latest.* FROM models CROSS JOIN LATERAL (
        SELECT model_id, period_start, period_end, prediction_count, CAST(result_summary_jsonb AS text) AS numbers
        FROM snapshots WHERE snapshots.model_id = models.id AND {inside} AND superseded_by IS NULL
        ORDER BY period_end DESC, created_at DESC, id DESC LIMIT 1
    ) AS latest
    WHERE {among} ORDER BY models.id LIMIT :limit
"""
