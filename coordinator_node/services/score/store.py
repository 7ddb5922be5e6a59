"""Writes what a scoring pass found out, each kind in one statement: truths, scores with statuses, and waits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.entities.ids import new_id
from coordinator_node.entities.moves import check_move
from coordinator_node.entities.prediction import PREDICTION_MOVES, PredictionStatus
from coordinator_node.merkle.canonical import time_text
from coordinator_node.services.score.claim import GroupKey
from coordinator_node.services.score.scoring import Verdict

GENERATION = 1
"""The score that the live stage writes; later ones come from scoring a closed period again."""

_ACTUALS = (
    "SELECT id, scope_jsonb IS NOT NULL AS one_scope, actuals_jsonb FROM inputs WHERE id = ANY(CAST(:ids AS text[]))"
)
_READ_ACTUALS = text(_ACTUALS)
# Inputs may be shared by workers: all lock them in the order of their ids, so that none waits in a circle.
_LOCK_ACTUALS = text(f"{_ACTUALS} ORDER BY id FOR NO KEY UPDATE")
_RESOLVE = text(
    """
    UPDATE inputs SET status = 'RESOLVED', actuals_jsonb = found.actuals
    FROM unnest(CAST(:ids AS text[]), CAST(:actuals AS jsonb[])) AS found(id, actuals)
    WHERE inputs.id = found.id
    """
)
_SCORE = text(
    """
    WITH verdict AS (
        SELECT * FROM unnest(
            CAST(:ids AS text[]), CAST(:predictions AS text[]), CAST(:statuses AS text[]),
            CAST(:results AS jsonb[]), CAST(:successes AS boolean[]), CAST(:reasons AS text[])
        ) AS v(id, prediction_id, status, result, success, reason)
    ), moved AS (
        UPDATE predictions SET status = verdict.status, failed_reason = verdict.reason
        FROM verdict WHERE predictions.id = verdict.prediction_id AND predictions.status = 'PENDING'
        RETURNING predictions.id
    )
    INSERT INTO scores (id, prediction_id, result_jsonb, success, failed_reason, scored_at, generation, snapshot_state)
    SELECT verdict.id, verdict.prediction_id, verdict.result, verdict.success, verdict.reason, :now, :generation,
           'PENDING'
    FROM verdict JOIN moved ON moved.id = verdict.prediction_id
    """
)
_WAIT = text(
    """
    UPDATE predictions SET attempts = attempts + 1, next_attempt_at = waiting.until, failed_reason = waiting.problem
    FROM unnest(CAST(:ids AS text[]), CAST(:untils AS timestamptz[]), CAST(:problems AS text[]))
         AS waiting(id, until, problem)
    WHERE predictions.id = waiting.id
    """
)
_EXPIRE = text(
    """
    UPDATE predictions SET status = :status, attempts = attempts + 1, failed_reason = expired.reason
    FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS expired(id, reason)
    WHERE predictions.id = expired.id AND predictions.status = 'PENDING'
    """
)


@dataclass(frozen=True)
class Wait:
    """A prediction without ground truth: when to look again. `problem` is what the resolver did wrong, if it did."""

    prediction_id: str
    until: datetime
    problem: str | None = None


@dataclass(frozen=True)
class Expiry:
    """A prediction that ends without ground truth."""

    prediction_id: str
    reason: str


def read_truths(session: Session, groups: Iterable[GroupKey]) -> dict[GroupKey, dict[str, Any]]:
    """The truths that are stored with the inputs, of the groups that have one."""
    wanted = list(groups)
    rows = session.connection().execute(_READ_ACTUALS, {"ids": _inputs_of(wanted)}).all()
    stored = {row.id: (row.one_scope, row.actuals_jsonb) for row in rows}
    return {group: truth for group in wanted if (truth := _truth_in(*stored[group.input_id], group)) is not None}


def store_truths(session: Session, truths: Mapping[GroupKey, dict[str, Any]]) -> dict[GroupKey, dict[str, Any]]:
    """Store truths with their inputs, where none is stored yet; their rows stay locked until the transaction ends.

    Returns:
        What stands: another worker may have stored a group's truth first.
    """
    if not truths:
        return {}
    rows = session.connection().execute(_LOCK_ACTUALS, {"ids": _inputs_of(truths)}).all()
    actuals = {row.id: row.actuals_jsonb for row in rows}
    one_scope = {row.id: row.one_scope for row in rows}
    standing: dict[GroupKey, dict[str, Any]] = {}
    changed: dict[str, dict[str, Any]] = {}
    for group, truth in truths.items():
        there = _truth_in(one_scope[group.input_id], actuals[group.input_id], group)
        standing[group] = truth if there is None else there
        if there is None:
            whole = (
                truth if one_scope[group.input_id] else {**_object(actuals[group.input_id]), actuals_key(group): truth}
            )
            actuals[group.input_id] = changed[group.input_id] = whole
    if changed:
        documents = [_json(document) for document in changed.values()]
        session.connection().execute(_RESOLVE, {"ids": list(changed), "actuals": documents})
    return standing


def store_scores(session: Session, verdicts: Sequence[Verdict], now: datetime) -> None:
    """Store a score for each verdict and move its prediction on, together."""
    if not verdicts:
        return
    values = {
        "ids": [new_id() for _ in verdicts],
        "predictions": [verdict.prediction_id for verdict in verdicts],
        "statuses": [_status(verdict).value for verdict in verdicts],
        "results": [_json(verdict.result) for verdict in verdicts],
        "successes": [verdict.success for verdict in verdicts],
        "reasons": [verdict.failed_reason for verdict in verdicts],
        "now": now,
        "generation": GENERATION,
    }
    written = session.connection().execute(_SCORE, values).rowcount
    if written != len(verdicts):
        raise RuntimeError(f"{len(verdicts)} predictions were claimed and only {written} were still PENDING")


def store_waits(session: Session, waits: Sequence[Wait]) -> None:
    """Put predictions off until their next attempt."""
    if waits:
        values = {
            "ids": [wait.prediction_id for wait in waits],
            "untils": [wait.until for wait in waits],
            "problems": [wait.problem for wait in waits],
        }
        session.connection().execute(_WAIT, values)


def store_expiries(session: Session, expiries: Sequence[Expiry]) -> None:
    """End predictions whose ground truth did not come in time; they have no score."""
    if expiries:
        values = {
            "ids": [expiry.prediction_id for expiry in expiries],
            "reasons": [expiry.reason for expiry in expiries],
            "status": _moved(PredictionStatus.FAILED).value,
        }
        session.connection().execute(_EXPIRE, values)


def actuals_key(group: GroupKey) -> str:
    """Where the truth of a group is kept among the actuals of an input that may serve several scopes."""
    return f"{group.scope_key}@{time_text(group.resolvable_at)}"


def _truth_in(one_scope: bool, actuals: Any, group: GroupKey) -> dict[str, Any] | None:
    if not isinstance(actuals, dict):
        return None
    return actuals if one_scope else actuals.get(actuals_key(group))


def _inputs_of(groups: Iterable[GroupKey]) -> list[str]:
    return sorted({group.input_id for group in groups})


def _status(verdict: Verdict) -> PredictionStatus:
    return _moved(PredictionStatus.SCORED if verdict.success else PredictionStatus.FAILED)


def _moved(target: PredictionStatus) -> PredictionStatus:
    return check_move(PREDICTION_MOVES, "prediction", PredictionStatus.PENDING, target)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(document: Any) -> str:
    return json.dumps(document, allow_nan=False)
