"""Predictions summed up by series and time: over the rows themselves, and over the buckets that are kept.

Both give the same columns, those of `prediction_buckets`.
"""

from __future__ import annotations

from coordinator_node.db.series import ONCE

# JSONB holds numbers that no double can; beyond this a cast, or a sum of many, would fail the statement.
_NUMBER = """
    CASE WHEN jsonb_typeof({value}) = 'number' AND abs(CAST({value} AS numeric)) <= 1e290
         THEN CAST({value} AS double precision) END
"""
# One whose first score failed keeps its status when it is scored again; the newest score says how it went.
_FAILED = """
    (prediction.status = 'ABSENT' OR (prediction.status = 'FAILED' AND score.success IS NOT TRUE)
     OR COALESCE(NOT score.success, false))
"""
_REASON = """
    CASE WHEN failed THEN COALESCE(
        NULLIF(score_reason, ''), NULLIF(own_reason, ''),
        CASE WHEN status = 'ABSENT' THEN 'the model was absent' ELSE 'failed without a reason' END
    ) END
"""
_VALUE = f"""
    CASE WHEN NOT failed THEN COALESCE(
        {_NUMBER.format(value="found")}, {_NUMBER.format(value="result_jsonb -> 'value'")}
    ) END
"""
# Of several scores of a prediction the newest generation counts. Written as a join that leaves out the older ones, not
# as a look into the index for each prediction: over many rows that takes several times as long. Nearly all scores are
# of generation 1, so that there is next to nothing to leave out.
_SCORE = """
    LEFT JOIN scores AS score ON score.prediction_id = prediction.id AND NOT EXISTS (
        SELECT 1 FROM scores AS newer
        WHERE newer.prediction_id = score.prediction_id AND newer.generation IS DISTINCT FROM 1
          AND (COALESCE(newer.generation, 0), newer.scored_at, newer.id)
            > (COALESCE(score.generation, 0), score.scored_at, score.id)
    ) AND (score.generation IS NOT NULL OR NOT EXISTS (
        SELECT 1 FROM scores AS newer WHERE newer.prediction_id = score.prediction_id AND newer.generation = 1
    ))
"""

COLUMNS = (
    "begins_at, model_id, scope_key, prediction_config_id, points, performed_at, failed, value_total, value_count,"
    " horizon_least, horizon_greatest, reason_least, reason_greatest, reason_count, scored_least, scored_greatest,"
    " scored_count, scope_hash_least, scope_hash_greatest, sample_id"
)
"""The columns that the statements below give, in this order."""


def summed_rows(begins_at: str, condition: str) -> str:
    """The sums over predictions that meet a condition, with `:value_field` a parameter.

    Args:
        begins_at: the bucket of `prediction.performed_at`, as SQL.
        condition: on `prediction`, as SQL.
    """
    return f"""
        SELECT begins_at, model_id, scope_key, prediction_config_id, count(*), max(performed_at),
               count(*) FILTER (WHERE failed), sum(value), count(value), min(horizon), max(horizon),
               min(reason), max(reason), count(reason), min(scored_at), max(scored_at), count(scored_at),
               min(scope_hash), max(scope_hash), min(id)
        FROM (
            SELECT begins_at, id, model_id, scope_key, prediction_config_id, performed_at, horizon, scored_at,
                   scope_hash, failed, {_REASON} AS reason, {_VALUE} AS value
            FROM (
                SELECT {begins_at} AS begins_at, prediction.id, prediction.model_id, prediction.scope_key,
                       COALESCE(prediction.prediction_config_id, '') AS prediction_config_id, prediction.performed_at,
                       prediction.resolvable_at - prediction.performed_at AS horizon, score.scored_at,
                       COALESCE(jsonb_hash_extended(prediction.scope_jsonb, 0), 0) AS scope_hash, {_FAILED} AS failed,
                       prediction.status, prediction.failed_reason AS own_reason, score.failed_reason AS score_reason,
                       score.result_jsonb, score.result_jsonb -> CAST(:value_field AS text) AS found
                FROM predictions AS prediction {_SCORE}
                WHERE {condition} {ONCE}
            ) AS joined {ONCE}
        ) AS points
        GROUP BY begins_at, model_id, scope_key, prediction_config_id
    """  # noqa: S608 - put together from constants of this package and names of parameters


def merged(source: str, begins_at: str) -> str:
    """The sums over rows that are sums themselves.

    Args:
        source: what to read FROM, with a WHERE where it needs one, as SQL.
        begins_at: the wider bucket of a row's `begins_at`, as SQL.
    """
    return f"""
        SELECT {begins_at} AS begins_at, model_id, scope_key, prediction_config_id, sum(points) AS points,
               max(performed_at) AS performed_at, sum(failed) AS failed, sum(value_total) AS value_total,
               sum(value_count) AS value_count, min(horizon_least) AS horizon_least,
               max(horizon_greatest) AS horizon_greatest, min(reason_least) AS reason_least,
               max(reason_greatest) AS reason_greatest, sum(reason_count) AS reason_count,
               min(scored_least) AS scored_least, max(scored_greatest) AS scored_greatest,
               sum(scored_count) AS scored_count, min(scope_hash_least) AS scope_hash_least,
               max(scope_hash_greatest) AS scope_hash_greatest, min(sample_id) AS sample_id
        FROM {source}
        GROUP BY 1, model_id, scope_key, prediction_config_id
    """  # noqa: S608 - put together from constants of this package and names of parameters
