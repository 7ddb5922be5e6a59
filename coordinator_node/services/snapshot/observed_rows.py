"""Scored predictions as observations: the part of a query that both readers share, and what becomes of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coordinator_node.db.json_text import parse_json, parse_object
from coordinator_node.services.snapshot.observations import Observation

# Of the ground truth only what a metric may take as the return is read: it may hold the whole input (horizon 0). An
# input without a scope of its own keeps its truths by scope and time, as services.score.store.actuals_key names them.
# JSON comes as text, because it is parsed faster here (db.json_text).
OBSERVED_COLUMNS = """
    prediction.model_id, prediction.input_id, prediction.scope_key,
    prediction.performed_at, prediction.resolvable_at, scores.scored_at,
    CAST(prediction.inference_output_jsonb AS text) AS output, CAST(scores.result_jsonb AS text) AS result,
    CAST(prediction.scope_jsonb AS text) AS scope,
    CASE WHEN starts_with(prediction.model_id, '__ensemble_')
         THEN CAST(prediction.meta_jsonb -> 'weights' AS text) END AS weights,
    CAST(truth.actuals -> 'actual_return' AS text) AS actual_return, CAST(truth.actuals -> 'profit' AS text) AS profit
"""
TRUTH_OF_PREDICTION = """
    JOIN inputs ON inputs.id = prediction.input_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN inputs.scope_jsonb IS NOT NULL THEN inputs.actuals_jsonb ELSE inputs.actuals_jsonb -> (
            prediction.scope_key || '@'
            || to_char(prediction.resolvable_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        ) END AS actuals
    ) AS truth
"""


def observation_of(columns: Sequence[Any]) -> Observation:
    """The observation in the values of OBSERVED_COLUMNS."""
    # By position: asking a row for each column by its name takes longer than all the rest.
    model_id, input_id, scope_key, performed_at, resolvable_at, scored_at, output, result, scope, *numbers = columns
    weights, actual_return, profit = map(parse_json, numbers)
    return Observation(
        model_id,
        input_id,
        scope_key,
        performed_at,
        resolvable_at,
        parse_object(output),
        parse_object(result),
        {"actual_return": actual_return, "profit": profit},
        scope,
        scored_at,
        weights if isinstance(weights, dict) else None,
    )
