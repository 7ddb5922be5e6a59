"""The leaves of what a cycle counts: for each prediction its own hash and that of its outcome.

A prediction's own hash is the one that it was committed with. Where it was not committed, it is taken from the row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.db.json_text import parse_json
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.merkle.canonical import canonical_hash, canonical_or_none, time_text
from coordinator_node.merkle.documents import outcome_leaf, prediction_leaf, predictions_root
from coordinator_node.services.merkle.cycles import Counted
from coordinator_node.services.score.claim import GroupKey
from coordinator_node.services.score.store import truth_in
from coordinator_node.services.snapshot.observations import Observation
from coordinator_node.services.snapshot.uncounted import Miss, UncountedScore

# Columns of a prediction that hold whatever was written, by others too.
_FREE_FORM = ("scope_jsonb", "inference_output_jsonb")

HASH_BYTES = 32

_SCORED, _FAILED = PredictionStatus.SCORED.value, PredictionStatus.FAILED.value

_PREDICTIONS = text(
    """
    SELECT id, input_id, model_id, scope_key, scope_jsonb, inference_output_jsonb, performed_at, resolvable_at,
           status, failed_reason, commitment_id, commitment_index
    FROM predictions WHERE id = ANY(CAST(:ids AS text[]))
    """
)
_COMMITMENTS = text("SELECT id, leaves FROM merkle_commitments WHERE id = ANY(CAST(:ids AS text[]))")
_TRUTHS = text(
    """
    SELECT id, scope_jsonb IS NOT NULL AS one_scope, CAST(actuals_jsonb AS text) AS actuals
    FROM inputs WHERE id = ANY(CAST(:ids AS text[]))
    """
)


class LeafSources:
    """All that the leaves of a cycle are made of, read from the database."""

    def __init__(self, session: Session, scores: Sequence[UncountedScore], misses: Sequence[Miss]) -> None:
        self._scores = scores
        self._misses = misses
        self._rows = _rows(session, [score.prediction_id for score in scores if score.commitment_id is None], misses)
        self._committed = _committed(session, scores, self._rows.values())
        self._truths = _TruthHashes(session, {score.observation.input_id for score in scores})

    def counted_by_model(self) -> dict[str, Counted]:
        """The leaves, by model: those of the scores in their order, then those of the misses in theirs.

        It uses no database, so that another thread may be given it while this one waits for the database.
        """
        by_model: defaultdict[str, tuple[list[str], list[bytes]]] = defaultdict(lambda: ([], []))
        for model_id, prediction_id, own, outcome in chain(self._of_scores(), self._of_misses()):
            ids, leaves = by_model[model_id]
            ids.append(prediction_id)
            leaves += (own, outcome)
        return {
            model_id: Counted(ids, b"".join(leaves), predictions_root(leaves))
            for model_id, (ids, leaves) in by_model.items()
        }

    def _of_scores(self) -> Iterator[tuple[str, str, bytes, bytes]]:
        """The model's id, the prediction's, its leaf and its outcome's."""
        committed, truths, times = self._committed, self._truths, _Times()
        # Each is taken apart at once: asking for its fields one by one is a good part of all that is done here.
        for _, prediction_id, success, _, seen, failed_reason, commitment_id, index in self._scores:
            status, truth, at = _SCORED if success else _FAILED, truths.of(seen), times.of(seen)
            outcome = outcome_leaf(prediction_id, status, failed_reason, seen.result, truth, at)
            own = _leaf_in(committed, commitment_id, index) or prediction_leaf(self._rows[prediction_id])
            yield seen.model_id, prediction_id, own, outcome

    def _of_misses(self) -> Iterator[tuple[str, str, bytes, bytes]]:
        """Likewise."""
        for miss in self._misses:
            row = self._rows[miss.prediction_id]
            own = _leaf_in(self._committed, row["commitment_id"], row["commitment_index"]) or prediction_leaf(row)
            outcome = outcome_leaf(miss.prediction_id, miss.status.value, row["failed_reason"], None, None, None)
            yield miss.model_id, miss.prediction_id, own, outcome


class _TruthHashes:
    """The hashes of the ground truths of some inputs; each is taken once, for all models that share it."""

    def __init__(self, session: Session, input_ids: Iterable[str]) -> None:
        rows = session.connection().execute(_TRUTHS, {"ids": list(input_ids)})
        self._actuals = {row.id: (row.one_scope, parse_json(row.actuals)) for row in rows}
        self._hashes: dict[tuple[str, str, datetime], str | None] = {}

    def of(self, seen: Observation) -> str | None:
        """The hash of what a score was made of; None where no ground truth is stored."""
        key = seen.input_id, seen.scope_key, seen.resolvable_at
        if key not in self._hashes:
            truth = truth_in(*self._actuals[seen.input_id], GroupKey(*key))
            self._hashes[key] = None if truth is None else canonical_hash(truth)
        return self._hashes[key]


class _Times:
    """The texts of the times of scores, most of which are of the same few batches."""

    def __init__(self) -> None:
        self._last: tuple[datetime, str] | None = None

    def of(self, seen: Observation) -> str:
        """When a score was made."""
        if self._last is None or seen.scored_at != self._last[0]:
            self._last = seen.scored_at, time_text(seen.scored_at)
        return self._last[1]


def _rows(session: Session, uncommitted: list[str], misses: Sequence[Miss]) -> dict[str, dict[str, Any]]:
    """The rows of those predictions whose leaf, or outcome, is read from the row itself."""
    ids = [*uncommitted, *(miss.prediction_id for miss in misses)]
    if not ids:
        return {}
    found = session.connection().execute(_PREDICTIONS, {"ids": ids}).mappings()
    return {row["id"]: {**row, **{name: canonical_or_none(row[name]) for name in _FREE_FORM}} for row in found}


def _committed(session: Session, scores: Sequence[UncountedScore], rows: Iterable[dict[str, Any]]) -> dict[str, bytes]:
    """The leaves of the commitments that these predictions name, by commitment."""
    ids = {score.commitment_id for score in scores} | {row["commitment_id"] for row in rows}
    found = session.connection().execute(_COMMITMENTS, {"ids": [one for one in ids if one]}).all() if ids else []
    return {row.id: bytes(row.leaves) for row in found}


def _leaf_in(committed: Mapping[str, bytes], commitment_id: str | None, index: int | None) -> bytes | None:
    """The leaf that a prediction was committed with; None where it was not."""
    if commitment_id is None or index is None:
        return None
    return committed[commitment_id][HASH_BYTES * index : HASH_BYTES * (index + 1)]
