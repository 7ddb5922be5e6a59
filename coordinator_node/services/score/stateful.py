"""Scoring that keeps state: each model's predictions in the order of their outcomes, by one worker at a time.

The state is a JSON object a model, {} at first. Whoever locks a model's row of `scoring_states` scores that model; the
state that the last score left is stored in the transaction of the scores, so that a crash loses both or neither. A
prediction whose truth is not known yet holds up those after it, until it is scored or given up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.db.engine import transaction
from coordinator_node.db.json_text import encode_json, parse_json, parse_object
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.ground_truth import Outcome
from coordinator_node.services.merkle.commitments import COMMITTED_LATE
from coordinator_node.services.score import service
from coordinator_node.services.score.claim import ClaimedPrediction, GroupKey, committed_in_time, grouped
from coordinator_node.services.score.scoring import State, Verdict
from coordinator_node.services.score.service import ScoreStage, Truths
from coordinator_node.services.score.store import (
    Expiry,
    Wait,
    store_expiries,
    store_scores,
    store_truths,
    store_waits,
)

MODELS_AT_ONCE = 20
"""How many models one pass works on, so that there are some for other workers."""

# A model is due when the first of its pending predictions is: what comes after that one waits for it.
_DUE_MODELS = text(
    """
    SELECT models.id FROM models CROSS JOIN LATERAL (
        SELECT COALESCE(next_attempt_at, resolvable_at) AS due FROM predictions
        WHERE model_id = models.id AND status = 'PENDING' ORDER BY resolvable_at, id LIMIT 1
    ) AS first
    WHERE first.due <= :now ORDER BY first.due, models.id
    """
)
_NEW_STATES = text(
    """
    INSERT INTO scoring_states (model_id, state_jsonb, updated_at)
    SELECT id, '{}', :now FROM unnest(CAST(:ids AS text[])) AS due(id)
    ON CONFLICT (model_id) DO NOTHING
    """
)
_LOCK_STATES = text(
    """
    SELECT model_id, CAST(state_jsonb AS text) AS state FROM scoring_states
    WHERE model_id = ANY(CAST(:ids AS text[]))
    ORDER BY array_position(CAST(:ids AS text[]), CAST(model_id AS text))
    LIMIT :models FOR UPDATE SKIP LOCKED
    """
)
# The first columns are those of ClaimedPrediction, in its order.
_CLAIM = text(
    """
    SELECT own.* FROM unnest(CAST(:ids AS text[])) AS model(id) CROSS JOIN LATERAL (
        SELECT id, input_id, model_id, scope_key, CAST(inference_output_jsonb AS text), resolvable_at, attempts,
               commitment_id, COALESCE(next_attempt_at <= :now, true) AS ready
        FROM predictions WHERE model_id = model.id AND status = 'PENDING' AND resolvable_at <= :now
        ORDER BY resolvable_at, id LIMIT :each
    ) AS own
    """
)
_STORE_STATES = text(
    """
    UPDATE scoring_states SET state_jsonb = scored.state, updated_at = :now
    FROM unnest(CAST(:ids AS text[]), CAST(:states AS jsonb[])) AS scored(id, state)
    WHERE scoring_states.model_id = scored.id
    """
)


@dataclass
class _Pass:
    """What a pass found out."""

    verdicts: list[Verdict] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    expiries: list[Expiry] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)


class StatefulScoreStage(ScoreStage):
    """Scores predictions with a function `(prediction, ground_truth, state)` that may change the state it is given.

    What a score that failed did to the state is dropped, whether it raised, said success=False, or left a state that
    cannot be stored.
    """

    def run_once(self, now: datetime) -> PassResult:
        """Work on the models that are due and that no other worker holds, at most MODELS_AT_ONCE of them."""
        with transaction(self._engine) as session:
            due = list(session.connection().execute(_DUE_MODELS, {"now": now}).scalars())
            if due:
                session.connection().execute(_NEW_STATES, {"ids": due, "now": now})
        if not due:
            return PassResult({})
        with transaction(self._engine) as session:
            states = _lock_states(session, due)
            each = max(service.BATCH // MODELS_AT_ONCE, 1)
            in_time, late = committed_in_time(session, _claim(session, list(states), now, each))
            store_expiries(session, [Expiry(prediction.id, COMMITTED_LATE) for prediction in late])
            claimed = by_model(in_time, states)
            done = self._work_on(session, claimed, states, now)
        full = len(states) == MODELS_AT_ONCE or any(len(own) == each for own in claimed.values())
        counts = {
            "scored": sum(verdict.success for verdict in done.verdicts),
            "failed": sum(not verdict.success for verdict in done.verdicts) + len(done.expiries) + len(late),
            "waiting": len(done.waits),
        }
        return PassResult(counts, again=full and bool(done.verdicts or done.expiries or late))

    def _work_on(
        self,
        session: Session,
        claimed: Mapping[str, Sequence[ClaimedPrediction]],
        states: Mapping[str, State],
        now: datetime,
    ) -> _Pass:
        groups = grouped(prediction for own in claimed.values() for prediction in own)
        truths, outcomes = self._resolve(session, groups)
        # Before anything is scored: a score by a truth that does not stand could not be taken back out of the state.
        truths |= store_truths(session, {group: truth for group, truth in truths.items() if group in outcomes})
        done, until = _Pass(), time.monotonic() + service.SCORING_SECONDS
        for model_id, own in claimed.items():
            self._score_in_order(done, own, states[model_id], truths, outcomes, now, until)
        store_scores(session, done.verdicts, now)
        store_waits(session, done.waits)
        store_expiries(session, done.expiries)
        _store_states(session, done.states, now)
        return done

    def _score_in_order(
        self,
        done: _Pass,
        predictions: Sequence[ClaimedPrediction],
        state: State,
        truths: Truths,
        outcomes: Mapping[GroupKey, Outcome],
        now: datetime,
        until: float,
    ) -> None:
        """Score one model's predictions up to the first that has to wait, or until the time is up."""
        for prediction in predictions:
            group = GroupKey(prediction.input_id, prediction.scope_key, prediction.resolvable_at)
            truth = truths.get(group)
            if truth is None:
                waits, expiries = self._without_truth({group: [prediction]}, {group: outcomes[group]}, now)
                done.waits += waits
                done.expiries += expiries
                if waits:
                    return
                continue
            if time.monotonic() > until:
                return
            verdict, state = self._scored(prediction, truth, state)
            done.verdicts.append(verdict)
            done.states[prediction.model_id] = state

    def _scored(self, prediction: ClaimedPrediction, truth: Mapping[str, Any], before: State) -> tuple[Verdict, State]:
        """The verdict, and the state after it."""
        output = parse_json(prediction.output)
        return self._scorer.score_keeping(prediction.id, prediction.model_id, output, truth, before)


def _lock_states(session: Session, model_ids: Sequence[str]) -> dict[str, State]:
    """The states of the models that no other worker holds, locked until the transaction ends; at most some."""
    rows = session.connection().execute(_LOCK_STATES, {"ids": list(model_ids), "models": MODELS_AT_ONCE})
    return {row.model_id: parse_object(row.state) for row in rows}


def by_model(predictions: Sequence[ClaimedPrediction], model_ids: Iterable[str]) -> dict[str, list[ClaimedPrediction]]:
    """The predictions of each of these models, in their order."""
    found: dict[str, list[ClaimedPrediction]] = {model_id: [] for model_id in model_ids}
    for prediction in predictions:
        found[prediction.model_id].append(prediction)
    return found


def _claim(session: Session, model_ids: Sequence[str], now: datetime, each: int) -> list[ClaimedPrediction]:
    """The pending predictions of these models that are due, in order, up to the first that is put off."""
    claimed: list[ClaimedPrediction] = []
    put_off: set[str] = set()
    values = {"ids": list(model_ids), "now": now, "each": each}
    for *columns, ready in session.connection().execute(_CLAIM, values):
        prediction = ClaimedPrediction._make(columns)
        if not ready:
            put_off.add(prediction.model_id)
        if prediction.model_id not in put_off:
            claimed.append(prediction)
    return claimed


def _store_states(session: Session, states: Mapping[str, State], now: datetime) -> None:
    if states:
        values = {"ids": list(states), "states": [encode_json(state) for state in states.values()], "now": now}
        session.connection().execute(_STORE_STATES, values)
