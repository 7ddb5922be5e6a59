"""Snapshots summed up by model and time: over the rows themselves, and over the buckets that are kept.

Three things are summed up: the parts of the leaderboard's windows, the same by scope, and every number of the
summaries; of the summaries themselves the latest is kept. What others wrote has no counts of scopes and misses in its
meta, so of that only this version's is read. A snapshot that a rescore replaced is in no sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator_node.db.series import ONCE

_IS_NUMBER = "jsonb_typeof({value}) = 'number'"
_NUMBER = "CASE WHEN jsonb_typeof(value) = 'number' THEN CAST(value AS numeric) END"
_WEIGHTED = """
    sum(number * weight), COALESCE(sum(weight) FILTER (WHERE number IS NOT NULL), 0), COALESCE(sum(missing), 0)
"""
# JSONB holds numbers that no double can; beyond this a cast, or a sum of many, would fail the statement.
_FITTING = """
    CASE WHEN jsonb_typeof({value}) = 'number' AND abs(CAST({value} AS numeric)) <= 1e290
         THEN CAST({value} AS numeric) END
"""
_MISSING = "CASE WHEN cycle_id IS NOT NULL THEN CAST(meta_jsonb ->> 'missing_count' AS bigint) END AS missing"


def window_parts(ends_at: str, condition: str) -> str:
    """ends_at, model_id, total, weight, missing of the snapshots that meet a condition; `:value_field` is a parameter.

    Args:
        ends_at: the bucket of `period_end`, as SQL.
        condition: on `snapshots`, as SQL.
    """
    return f"""
        SELECT ends_at, model_id, {_WEIGHTED}
        FROM (
            SELECT ends_at, model_id, prediction_count AS weight, missing, {_NUMBER} AS number
            FROM (
                SELECT {ends_at} AS ends_at, model_id, prediction_count, {_MISSING},
                       result_summary_jsonb -> CAST(:value_field AS text) AS value
                FROM snapshots WHERE {condition} AND superseded_by IS NULL {ONCE}
            ) AS found {ONCE}
        ) AS weighted
        GROUP BY ends_at, model_id
    """  # noqa: S608 - put together from constants of this package and names of parameters


def scope_parts(ends_at: str, condition: str) -> str:
    """ends_at, model_id, scope_key, total, weight, missing, likewise."""
    # jsonb_each would lay out a table for each snapshot, which takes several times as long as all the rest.
    return f"""
        SELECT ends_at, model_id, key, {_WEIGHTED}
        FROM (
            SELECT ends_at, model_id, key, CAST(scope ->> 'prediction_count' AS bigint) AS weight,
                   CAST(scope ->> 'missing_count' AS bigint) AS missing, {_NUMBER} AS number
            FROM (
                SELECT ends_at, model_id, key, scope, scope -> 'value' AS value
                FROM (
                    SELECT ends_at, model_id, key, scopes -> key AS scope
                    FROM (
                        SELECT {ends_at} AS ends_at, model_id, scopes, jsonb_object_keys(scopes) AS key
                        FROM (
                            SELECT period_end, model_id, CASE WHEN jsonb_typeof(meta_jsonb -> 'scopes') = 'object'
                                                              THEN meta_jsonb -> 'scopes' END AS scopes
                            FROM snapshots WHERE {condition} AND superseded_by IS NULL AND cycle_id IS NOT NULL
                        ) AS counted
                    ) AS by_scope {ONCE}
                ) AS taken_apart {ONCE}
            ) AS found {ONCE}
        ) AS weighted
        GROUP BY ends_at, model_id, key
    """  # noqa: S608 - put together from constants of this package and names of parameters


def counts(ends_at: str, condition: str) -> str:
    """ends_at, model_id, snapshots, prediction_count, period_start, period_end, likewise."""
    return f"""
        SELECT {ends_at}, model_id, count(*), sum(prediction_count), min(period_start), max(period_end)
        FROM snapshots WHERE {condition} AND superseded_by IS NULL GROUP BY 1, model_id
    """  # noqa: S608 - put together from constants of this package and names of parameters


def number_sums(ends_at: str, condition: str) -> str:
    """ends_at, model_id, name, total, weight of the summaries' numbers; a snapshot weighs at least 1."""
    return f"""
        SELECT {ends_at}, model_id, number.key,
               sum(CAST(number.value AS double precision) * greatest(prediction_count, 1)),
               sum(greatest(prediction_count, 1))
        FROM snapshots CROSS JOIN LATERAL jsonb_each(
            CASE WHEN jsonb_typeof(result_summary_jsonb) = 'object' THEN result_summary_jsonb END
        ) AS number
        WHERE {condition} AND superseded_by IS NULL AND CASE WHEN {_IS_NUMBER.format(value="number.value")}
                                   THEN abs(CAST(number.value AS numeric)) <= 1e290 ELSE false END
        GROUP BY 1, model_id, number.key
    """  # noqa: S608 - put together from constants of this package and names of parameters


def latest_summaries(ends_at: str, condition: str) -> str:
    """ends_at, model_id, latest: the summary of the latest snapshot that counts some prediction, likewise."""
    return f"""
        SELECT DISTINCT ON (1, 2) {ends_at}, model_id, result_summary_jsonb
        FROM snapshots WHERE {condition} AND superseded_by IS NULL AND prediction_count > 0
        ORDER BY 1, 2, period_end DESC, created_at DESC, id DESC
    """  # noqa: S608 - put together from constants of this package and names of parameters


def named_sums(ends_at: str, condition: str, names: Sequence[str], values: dict[str, Any]) -> str:
    """What `counts` and `number_sums` give, in one pass over the rows, where the numbers' names are known.

    Gives ends_at, model_id, snapshots, prediction_count, period_start, period_end; `others`, the snapshots that hold
    more than those names; and for each name, by its place, total_0, weight_0, ….

    Args:
        ends_at: the bucket of `period_end`, as SQL.
        condition: on `snapshots`, as SQL.
        names: the numbers' names.
        values: taken up by the statement's parameters.
    """
    values["names"] = list(names)
    values |= {f"name_{place}": name for place, name in enumerate(names)}
    places = range(len(names))
    found = "".join(f", doc -> CAST(:name_{place} AS text) AS found_{place}" for place in places)
    number = "".join(f", {_FITTING.format(value=f'found_{place}')} AS number_{place}" for place in places)
    sums = "".join(
        f", sum(number_{place} * weight) AS total_{place},"
        f" sum(weight) FILTER (WHERE number_{place} IS NOT NULL) AS weight_{place}"
        for place in places
    )
    return f"""
        SELECT ends_at, model_id, count(*) AS snapshots, sum(prediction_count) AS prediction_count,
               min(period_start) AS period_start, max(period_end) AS period_end,
               count(*) FILTER (WHERE more) AS others {sums}
        FROM (
            SELECT {ends_at} AS ends_at, model_id, prediction_count, period_start, period_end, more,
                   greatest(prediction_count, 1) AS weight {number}
            FROM (
                SELECT model_id, prediction_count, period_start, period_end,
                       doc - CAST(:names AS text[]) <> '{{}}' AS more {found}
                FROM (
                    SELECT *, CASE WHEN jsonb_typeof(result_summary_jsonb) = 'object' THEN result_summary_jsonb
                              END AS doc
                    FROM snapshots WHERE {condition} AND superseded_by IS NULL
                ) AS documents {ONCE}
            ) AS taken_apart {ONCE}
        ) AS weighted
        GROUP BY 1, 2
    """  # noqa: S608 - put together from constants of this package and names of parameters


def merged_named_sums(ends_at: str, condition: str, names: Sequence[str]) -> str:
    """What `named_sums` gives, over the kept buckets that meet a condition; with the parameters of that one."""
    places = range(len(names))
    found = "".join(f", numbers_jsonb -> CAST(:name_{place} AS text) AS found_{place}" for place in places)
    sums = "".join(
        f", sum(CAST(found_{place} -> 0 AS numeric)) AS total_{place},"
        f" sum(CAST(found_{place} -> 1 AS bigint)) AS weight_{place}"
        for place in places
    )
    return f"""
        SELECT ends_at, model_id, sum(snapshots) AS snapshots, sum(prediction_count) AS prediction_count,
               min(period_start) AS period_start, max(period_end) AS period_end,
               count(*) FILTER (WHERE more) AS others {sums}
        FROM (
            SELECT {ends_at} AS ends_at, model_id, snapshots, prediction_count, period_start, period_end,
                   numbers_jsonb - CAST(:names AS text[]) <> '{{}}' AS more {found}
            FROM snapshot_buckets WHERE {condition} {ONCE}
        ) AS taken_apart
        GROUP BY 1, 2
    """  # noqa: S608 - put together from constants of this package and names of parameters


def kept_windows(condition: str) -> str:
    """ends_at, model_id, total, weight, missing, latest of the kept buckets that meet a condition, one by one."""
    return f"""
        SELECT ends_at, model_id, total, weight, missing, latest_jsonb AS latest
        FROM snapshot_buckets WHERE {condition}
    """  # noqa: S608 - put together from constants of this package and names of parameters


def kept_scopes(condition: str) -> str:
    """ends_at, model_id, scope_key, total, weight, missing, likewise."""
    # As above, without a table for each bucket.
    return f"""
        SELECT ends_at, model_id, scope_key, CAST(NULLIF(scope -> 0, 'null') AS numeric) AS total,
               CAST(scope -> 1 AS bigint) AS weight, CAST(scope -> 2 AS bigint) AS missing
        FROM (
            SELECT ends_at, model_id, scope_key, scopes_jsonb -> scope_key AS scope
            FROM (
                SELECT ends_at, model_id, scopes_jsonb, jsonb_object_keys(scopes_jsonb) AS scope_key
                FROM snapshot_buckets WHERE {condition}
            ) AS by_scope {ONCE}
        ) AS taken_apart
    """  # noqa: S608 - put together from constants of this package and names of parameters


def merged_windows(ends_at: str, condition: str) -> str:
    """What `window_parts` gives, over the kept buckets that meet a condition; `ends_at` is of the wider bucket."""
    return f"""
        SELECT {ends_at}, model_id, sum(total), sum(weight), sum(missing)
        FROM snapshot_buckets WHERE {condition} GROUP BY 1, model_id
    """  # noqa: S608 - put together from constants of this package and names of parameters


def merged_scopes(ends_at: str, condition: str) -> str:
    """What `scope_parts` gives, likewise."""
    return f"""
        SELECT {ends_at}, model_id, scope_key, sum(total), sum(weight), sum(missing)
        FROM ({kept_scopes(condition)}) AS scopes GROUP BY 1, model_id, scope_key
    """  # noqa: S608 - put together from constants of this package and names of parameters


def merged_latest(ends_at: str, condition: str) -> str:
    """What `latest_summaries` gives, likewise; NULL where the last bucket does not say, though another might."""
    return f"""
        SELECT DISTINCT ON (1, 2) {ends_at}, model_id, latest_jsonb
        FROM snapshot_buckets WHERE {condition} ORDER BY 1, 2, snapshot_buckets.ends_at DESC
    """  # noqa: S608 - put together from constants of this package and names of parameters


def merged_numbers(ends_at: str, condition: str) -> str:
    """What `number_sums` gives, likewise."""
    return f"""
        SELECT {ends_at}, model_id, number.key, sum(CAST(number.value ->> 0 AS double precision)),
               sum(CAST(number.value ->> 1 AS bigint))
        FROM snapshot_buckets CROSS JOIN LATERAL jsonb_each(numbers_jsonb) AS number
        WHERE {condition} GROUP BY 1, model_id, number.key
    """  # noqa: S608 - put together from constants of this package and names of parameters


def merged_counts(ends_at: str, condition: str) -> str:
    """What `counts` gives, likewise."""
    return f"""
        SELECT {ends_at}, model_id, sum(snapshots), sum(prediction_count), min(period_start), max(period_end)
        FROM snapshot_buckets WHERE {condition} GROUP BY 1, model_id
    """  # noqa: S608 - put together from constants of this package and names of parameters
