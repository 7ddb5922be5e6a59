"""Writes what a scoring pass found out, each kind in one statement: truths, scores with statuses, and waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.db.copying import copy_rows
from coordinator_node.db.json_text import encode_json
from coordinator_node.entities.ids import new_ids
from coordinator_node.entities.moves import check_move
from coordinator_node.entities.prediction import PREDICTION_MOVES, PredictionStatus, SnapshotState
from coordinator_node.merkle.canonical import time_text
from coordinator_node.runtime.metrics import count_failure
from coordinator_node.services.generations import LIVE_GENERATION
from coordinator_node.services.score.claim import GroupKey
from coordinator_node.services.score.scoring import Verdict

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
_SCORED = text("UPDATE predictions SET status = :status, failed_reason = NULL WHERE id = ANY(CAST(:ids AS text[]))")
_FAILED = text(
    """
    UPDATE predictions SET status = :status, failed_reason = failed.reason
    FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS failed(id, reason)
    WHERE predictions.id = failed.id
    """
)
_SCORE_COLUMNS = (
    "id",
    "prediction_id",
    "result_jsonb",
    "success",
    "failed_reason",
    "scored_at",
    "generation",
    "snapshot_state",
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
    return {group: truth for group in wanted if (truth := truth_in(*stored[group.input_id], group)) is not None}


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
        there = truth_in(one_scope[group.input_id], actuals[group.input_id], group)
        standing[group] = truth if there is None else there
        if there is None:
            whole = (
                truth if one_scope[group.input_id] else {**_object(actuals[group.input_id]), actuals_key(group): truth}
            )
            actuals[group.input_id] = changed[group.input_id] = whole
    if changed:
        documents = [encode_json(document) for document in changed.values()]
        session.connection().execute(_RESOLVE, {"ids": list(changed), "actuals": documents})
    return standing


def store_scores(session: Session, verdicts: Collection[Verdict], now: datetime) -> None:
    """Store a score for each verdict and move its prediction on, together. The predictions must be claimed.

    Raises:
        RuntimeError: a prediction is gone; the transaction must not commit.
    """
    if not verdicts:
        return
    ids = new_ids(len(verdicts))
    at, state = now.isoformat(), SnapshotState.PENDING.value
    rows = (
        (row_id, v.prediction_id, encode_json(v.result or {}), v.success, v.failed_reason, at, LIVE_GENERATION, state)
        for row_id, v in zip(ids, verdicts, strict=True)
    )
    copy_rows(session, "scores", _SCORE_COLUMNS, rows)
    moved = _move_scored(session, [verdict.prediction_id for verdict in verdicts if verdict.success])
    moved += _move_failed(session, [verdict for verdict in verdicts if not verdict.success])
    if moved != len(verdicts):
        raise RuntimeError(f"{len(verdicts)} predictions were claimed and only {moved} of them are still there")
    _count_failures(verdict.failed_reason or "" for verdict in verdicts if not verdict.success)


def _move_scored(session: Session, ids: list[str]) -> int:
    if not ids:
        return 0
    values = {"ids": ids, "status": _moved(PredictionStatus.SCORED).value}
    return session.connection().execute(_SCORED, values).rowcount


def _move_failed(session: Session, verdicts: Sequence[Verdict]) -> int:
    if not verdicts:
        return 0
    values = {
        "ids": [verdict.prediction_id for verdict in verdicts],
        "reasons": [verdict.failed_reason for verdict in verdicts],
        "status": _moved(PredictionStatus.FAILED).value,
    }
    return session.connection().execute(_FAILED, values).rowcount


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
    """End predictions whose ground truth did not come in time, or that may not be scored; they have no score."""
    if expiries:
        values = {
            "ids": [expiry.prediction_id for expiry in expiries],
            "reasons": [expiry.reason for expiry in expiries],
            "status": _moved(PredictionStatus.FAILED).value,
        }
        session.connection().execute(_EXPIRE, values)
        _count_failures(expiry.reason for expiry in expiries)


def _count_failures(reasons: Iterable[str]) -> None:
    for reason, rows in Counter(reasons).items():
        count_failure("score", reason, rows)


def actuals_key(group: GroupKey) -> str:
    """Where the truth of a group is kept among the actuals of an input that may serve several scopes."""
    return f"{group.scope_key}@{time_text(group.resolvable_at)}"


def truth_in(one_scope: bool, actuals: Any, group: GroupKey) -> dict[str, Any] | None:
    """The truth of a group among the actuals of its input, which may have one scope or several; None for none."""
    if not isinstance(actuals, dict):
        return None
    return actuals if one_scope else actuals.get(actuals_key(group))


def _inputs_of(groups: Iterable[GroupKey]) -> list[str]:
    return sorted({group.input_id for group in groups})


def _moved(target: PredictionStatus) -> PredictionStatus:
    return check_move(PREDICTION_MOVES, "prediction", PredictionStatus.PENDING, target)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
