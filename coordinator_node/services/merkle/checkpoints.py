"""Seals a checkpoint: one root over its emission, its ranking and every cycle that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, default_aggregate_snapshot, default_build_emission
from coordinator_node.db.json_text import encode_json
from coordinator_node.extensions import emission_strategies
from coordinator_node.merkle.canonical import time_text
from coordinator_node.merkle.documents import checkpoint_header, sealed
from coordinator_node.merkle.tree import MerkleNode, build_merkle_tree, root_of
from coordinator_node.services.generations import newest_generation
from coordinator_node.services.merkle.cycles import store_nodes

DEFAULT = "default"

# Late snapshots are of earlier periods, so they end before this one does, too.
_COVER = text(
    """
    UPDATE merkle_cycles AS cycle SET checkpoint_id = :checkpoint_id
    WHERE cycle.position IS NOT NULL AND cycle.checkpoint_id IS NULL AND EXISTS (
        SELECT 1 FROM snapshots WHERE snapshots.cycle_id = cycle.id AND snapshots.period_end < :period_end
    )
    RETURNING cycle.position, cycle.chained_root
    """
)
_LAST_CYCLE = text("SELECT max(position) FROM merkle_cycles")
_PREVIOUS = text(
    """
    SELECT id, merkle_root FROM checkpoints
    WHERE period IS NOT NULL AND merkle_root IS NOT NULL AND period_end <= :period_start
    ORDER BY period_end DESC LIMIT 1
    """
)
_TIES = text("SELECT id, first_scored_at FROM models WHERE id = ANY(CAST(:ids AS text[]))")
_SEAL = text("UPDATE checkpoints SET merkle_root = :root, meta_jsonb = CAST(:meta AS jsonb) WHERE id = :id")


def seal_checkpoint(session: Session, checkpoint: Mapping[str, Any], config: CrunchConfig, settings: Settings) -> str:
    """Give a checkpoint its root, in the transaction that has just inserted its row.

    Its meta gets `rules` (what a stranger needs to recompute the ranking and the emission), `ties` (what models of
    equal value are ranked by) and `merkle` (the root, and what it covers).

    Args:
        session: holds the boundaries closed, so that no snapshot is being written.
        checkpoint: the row as it was inserted: id, period_start, period_end, created_at, entries_jsonb, meta_jsonb.
        config: by which it was made.
        settings: likewise.

    Returns:
        The root, in hexadecimal digits.
    """
    values = {"checkpoint_id": checkpoint["id"], "period_end": checkpoint["period_end"]}
    cycles = sorted(session.connection().execute(_COVER, values).all())
    nodes = build_merkle_tree([MerkleNode(chained_root, 0, 0) for _, chained_root in cycles])
    cycles_root = bytes.fromhex(nodes[-1].hash) if nodes else root_of([])
    previous = session.connection().execute(_PREVIOUS, {"period_start": checkpoint["period_start"]}).one_or_none()
    meta = {
        **checkpoint["meta_jsonb"],
        "rules": rules_of(config, settings),
        "ties": _ties(session, checkpoint["meta_jsonb"].get("ranking", [])),
        "merkle": {
            "version": 1,
            "previous_checkpoint_id": previous.id if previous else None,
            "previous_root": previous.merkle_root if previous else None,
            "cycles_root": cycles_root.hex(),
            "cycle_count": len(cycles),
            # Which snapshots the ranking could see: those of the cycles up to here.
            "last_position": session.connection().execute(_LAST_CYCLE).scalar(),
            # Likewise: what a rescore after it superseded was still counted.
            "generation": newest_generation(session),
        },
    }
    header = checkpoint_header(
        checkpoint["id"],
        checkpoint["period_start"],
        checkpoint["period_end"],
        checkpoint["created_at"],
        checkpoint["entries_jsonb"],
        meta,
    )
    root = sealed(header, cycles_root).hex()
    meta["merkle"]["root"] = root
    session.connection().execute(_SEAL, {"id": checkpoint["id"], "root": root, "meta": encode_json(meta)})
    store_nodes(session, nodes, checkpoint["created_at"], checkpoint_id=checkpoint["id"])
    return root


def rules_of(config: CrunchConfig, settings: Settings) -> dict[str, Any]:
    """By what a checkpoint is made.

    A callable is "default", or named by its place in the code; a strategy of this package with its options.
    """
    aggregation = config.aggregation
    aggregator: Any = config.aggregate_snapshot
    if settings.model_score_aggregator and aggregator is default_aggregate_snapshot:
        aggregator = settings.model_score_aggregator
    return {
        "value_field": aggregation.value_field,
        "windows": {name: window.hours for name, window in aggregation.windows.items()},
        "ranking_key": aggregation.ranking_key,
        "ranking_direction": aggregation.ranking_direction,
        "missing_score": aggregation.missing_score,
        "min_predictions": aggregation.min_predictions,
        "metrics": list(config.metrics),
        "metrics_window_hours": config.metrics_window_hours,
        "aggregate_snapshot": _name(aggregator, default_aggregate_snapshot),
        "build_emission": _name(config.build_emission, default_build_emission),
        "leaderboard_ranker": settings.leaderboard_ranker or DEFAULT,
        "scoring_function": _name(config.scoring_function or settings.scoring_function, None),
        "crunch": settings.crunch_pubkey or config.crunch_pubkey,
        "compute_provider": settings.compute_provider_pubkey or config.compute_provider or None,
        "data_provider": settings.data_provider_pubkey or config.data_provider or None,
    }


def _ties(session: Session, ranking: list[dict[str, Any]]) -> dict[str, str | None]:
    """When each ranked model was first scored: of equal values the earlier one leads, then the smaller id."""
    found = session.connection().execute(_TIES, {"ids": [entry["model_id"] for entry in ranking]})
    first: dict[str, datetime | None] = {row.id: row.first_scored_at for row in found}
    return {model_id: None if at is None else time_text(at) for model_id, at in first.items()}


def _name(used: Any, default: Any) -> str:
    if used is default:
        return DEFAULT
    if isinstance(used, str):
        return used
    if isinstance(used, partial):
        return f"{_name(used.func, None)}{_options(used)}"
    module, name = getattr(used, "__module__", ""), getattr(used, "__qualname__", type(used).__qualname__)
    return f"{module}:{name}"


def _options(used: partial[Any]) -> str:
    """What is bound to a strategy of this package; nothing of an operator's callable, which may be secret."""
    if getattr(used.func, "__module__", "") != emission_strategies.__name__:
        return ""
    return f"({', '.join(f'{key}={value!r}' for key, value in used.keywords.items())})"
