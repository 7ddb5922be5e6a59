"""Snapshots summed up by model and time: over the rows themselves, and over the buckets that are kept.

Three things are summed up: the parts of the leaderboard's windows, the same by scope, and every number of the
summaries. What others wrote has no counts of scopes and misses in its meta, so of that only this version's is read.
A snapshot that a rescore replaced is in no sum.
"""

from __future__ import annotations

_IS_NUMBER = "jsonb_typeof({value}) = 'number'"
_TOTAL = """
    sum(CASE WHEN jsonb_typeof({value}) = 'number' THEN CAST({value} AS numeric) * {weight} END),
    COALESCE(sum(CASE WHEN jsonb_typeof({value}) = 'number' THEN {weight} END), 0)
"""
_MISSING = "COALESCE(sum(CASE WHEN cycle_id IS NOT NULL THEN CAST(meta_jsonb ->> '{name}' AS bigint) END), 0)"


def window_parts(ends_at: str, condition: str) -> str:
    """ends_at, model_id, total, weight, missing of the snapshots that meet a condition; `:value_field` is a parameter.

    Args:
        ends_at: the bucket of `period_end`, as SQL.
        condition: on `snapshots`, as SQL.
    """
    value = "(result_summary_jsonb -> CAST(:value_field AS text))"
    return f"""
        SELECT {ends_at}, model_id, {_TOTAL.format(value=value, weight="prediction_count")},
               {_MISSING.format(name="missing_count")}
        FROM snapshots WHERE {condition} AND superseded_by IS NULL GROUP BY 1, model_id
    """  # noqa: S608 - put together from constants of this package and names of parameters


def scope_parts(ends_at: str, condition: str) -> str:
    """ends_at, model_id, scope_key, total, weight, missing, likewise."""
    weight = "CAST(scope.value ->> 'prediction_count' AS bigint)"
    return f"""
        SELECT {ends_at}, model_id, scope.key, {_TOTAL.format(value="(scope.value -> 'value')", weight=weight)},
               COALESCE(sum(CAST(scope.value ->> 'missing_count' AS bigint)), 0)
        FROM snapshots CROSS JOIN LATERAL jsonb_each(
            CASE WHEN cycle_id IS NOT NULL AND jsonb_typeof(meta_jsonb -> 'scopes') = 'object'
                 THEN meta_jsonb -> 'scopes' END
        ) AS scope
        WHERE {condition} AND superseded_by IS NULL GROUP BY 1, model_id, scope.key
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


def kept_scope_parts(ends_at: str, condition: str) -> str:
    """What `scope_parts` gives, over the kept buckets that meet a condition."""
    return f"""
        SELECT {ends_at}, model_id, scope.key, sum(CAST(scope.value ->> 0 AS numeric)),
               sum(CAST(scope.value ->> 1 AS bigint)), sum(CAST(scope.value ->> 2 AS bigint))
        FROM snapshot_buckets CROSS JOIN LATERAL jsonb_each(scopes_jsonb) AS scope
        WHERE {condition} GROUP BY 1, model_id, scope.key
    """  # noqa: S608 - put together from constants of this package and names of parameters


def kept_number_sums(ends_at: str, condition: str) -> str:
    """What `number_sums` gives, over the kept buckets that meet a condition."""
    return f"""
        SELECT {ends_at}, model_id, number.key, sum(CAST(number.value ->> 0 AS double precision)),
               sum(CAST(number.value ->> 1 AS bigint))
        FROM snapshot_buckets CROSS JOIN LATERAL jsonb_each(numbers_jsonb) AS number
        WHERE {condition} GROUP BY 1, model_id, number.key
    """  # noqa: S608 - put together from constants of this package and names of parameters


def kept_window_parts(ends_at: str, condition: str) -> str:
    """What `window_parts` gives, over the kept buckets that meet a condition."""
    return f"""
        SELECT {ends_at}, model_id, sum(total), sum(weight), sum(missing)
        FROM snapshot_buckets WHERE {condition} GROUP BY 1, model_id
    """  # noqa: S608 - put together from constants of this package and names of parameters


def kept_counts(ends_at: str, condition: str) -> str:
    """What `counts` gives, over the kept buckets that meet a condition."""
    return f"""
        SELECT {ends_at}, model_id, sum(snapshots), sum(prediction_count), min(period_start), max(period_end)
        FROM snapshot_buckets WHERE {condition} GROUP BY 1, model_id
    """  # noqa: S608 - put together from constants of this package and names of parameters
