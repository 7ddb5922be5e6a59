"""What .local.env names by dotted path."""

from typing import Any

from coordinator_node.contracts import Aggregation


def build_input(raw_input: dict[str, Any]) -> dict[str, Any]:
    candles = raw_input.get("candles_1m") or []
    return {**raw_input, "last_price": candles[-1]["close"] if candles else None}


def validate_output(output: dict[str, Any]) -> dict[str, Any] | None:
    if abs(output.get("expected_return", 0.0)) > 10.0:
        return None
    return output


def aggregate_scores(score_results: list[dict[str, Any]]) -> dict[str, Any]:
    values = [float(result["value"]) for result in score_results]
    errors = [float(result["squared_error"]) for result in score_results]
    if not values:
        return {}
    return {"value": sum(values) / len(values), "squared_error": sum(errors) / len(errors), "best": max(values)}


def rank_entries(entries: list[dict[str, Any]], aggregation: Aggregation) -> list[dict[str, Any]]:
    key, descending = aggregation.ranking_key, aggregation.ranking_direction == "desc"

    def value(entry: dict[str, Any]) -> float:
        found = entry["score"]["metrics"].get(key)
        return float(found) if found is not None else float("-inf")

    return sorted(entries, key=value, reverse=descending)
