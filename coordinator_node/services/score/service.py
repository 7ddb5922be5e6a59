"""The score stage: claims what is due, resolves ground truths, scores, and stores it all in one transaction.

Any number of workers may run it. A pass that ends before its commit leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.db.json_text import parse_json
from coordinator_node.runtime.logging import get_logger
from coordinator_node.runtime.loop import PassResult
from coordinator_node.services.ground_truth import GroundTruths, Outcome
from coordinator_node.services.merkle.commitments import COMMITTED_LATE
from coordinator_node.services.score.claim import (
    ClaimedPrediction,
    GroupKey,
    claim_due,
    committed_in_time,
    grouped,
    read_records,
)
from coordinator_node.services.score.claim_size import ClaimSize
from coordinator_node.services.score.scoring import Scorer, Verdict
from coordinator_node.services.score.store import (
    Expiry,
    Wait,
    read_truths,
    store_expiries,
    store_scores,
    store_truths,
    store_waits,
)

log = get_logger(__name__)

BATCH = 2000

SCORING_SECONDS = 5.0
"""How long one pass calls the scoring function; what is left then waits for the next, so that a slow function neither
holds its rows for long nor keeps the worker from draining in time."""

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0

NO_GROUND_TRUTH = "no ground truth"

type Groups = dict[GroupKey, list[ClaimedPrediction]]
type Truths = dict[GroupKey, dict[str, Any]]


class ScoreStage:
    """Scores predictions whose outcome is known, with a function that keeps no state.

    Raises:
        ConfigurationError: when made, for what cannot be imported or called.
    """

    def __init__(self, engine: Engine, config: CrunchConfig, settings: Settings) -> None:
        self._engine = engine
        self._truths = GroundTruths(config, settings)
        self._scorer = Scorer(config, settings)
        self._size = ClaimSize(BATCH)
        self._timeout = timedelta(seconds=settings.ground_truth_timeout_seconds)

    def run_once(self, now: datetime) -> PassResult:
        """Work on the predictions that are due, at most BATCH of them."""
        limit = self._size.limit
        with transaction(self._engine) as session:
            claimed = claim_due(session, now, limit)
            in_time, late = committed_in_time(session, claimed)
            store_expiries(session, [Expiry(prediction.id, COMMITTED_LATE) for prediction in late])
            counts = self._settle(session, grouped(in_time), now) if in_time else {}
            if late:
                log.warning("predictions failed: they were committed late", predictions=len(late))
                counts["failed"] = counts.get("failed", 0) + len(late)
        return PassResult(counts, again=len(claimed) == limit)

    def _settle(self, session: Session, groups: Groups, now: datetime) -> dict[str, int]:
        truths, outcomes = self._resolve(session, groups)
        begun = time.monotonic()
        verdicts = self._score(groups, truths, begun + SCORING_SECONDS)
        self._size.took(len(verdicts), time.monotonic() - begun)
        new = {group: truth for group, truth in truths.items() if group in outcomes}
        for group, standing in store_truths(session, new).items():
            if standing != new[group]:
                # Another worker stored another truth first: a group has one, so these are scored again by that.
                scored = [prediction for prediction in groups[group] if prediction.id in verdicts]
                verdicts |= {prediction.id: self._verdict(prediction, standing) for prediction in scored}
        waits, expiries = self._without_truth(groups, outcomes, now)
        store_scores(session, verdicts.values(), now)
        store_waits(session, waits)
        store_expiries(session, expiries)
        scored_count = sum(verdict.success for verdict in verdicts.values())
        return {
            "scored": scored_count,
            "failed": len(verdicts) - scored_count + len(expiries),
            "waiting": len(waits),
        }

    def _resolve(self, session: Session, groups: Groups) -> tuple[Truths, dict[GroupKey, Outcome]]:
        """The truths there are, and the outcomes of the groups that had none stored."""
        truths = read_truths(session, groups)
        missing = [group for group in groups if group not in truths]
        records = read_records(session, [groups[group][0].id for group in missing])
        found = self._truths.outcomes(session, [records[groups[group][0].id] for group in missing])
        outcomes = dict(zip(missing, found, strict=True))
        truths |= {group: outcome.truth for group, outcome in outcomes.items() if outcome.truth is not None}
        return truths, outcomes

    def _score(self, groups: Groups, truths: Truths, until: float) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        for group, truth in truths.items():
            for prediction in groups[group]:
                if time.monotonic() > until:
                    log.warning("scoring is slow; the rest of the batch waits for the next pass", scored=len(verdicts))
                    return verdicts
                verdicts[prediction.id] = self._verdict(prediction, truth)
        return verdicts

    def _verdict(self, prediction: ClaimedPrediction, truth: Mapping[str, Any]) -> Verdict:
        return self._scorer.score(prediction.id, prediction.model_id, parse_json(prediction.output), truth)

    def _without_truth(
        self, groups: Groups, outcomes: Mapping[GroupKey, Outcome], now: datetime
    ) -> tuple[list[Wait], list[Expiry]]:
        waits: list[Wait] = []
        expiries: list[Expiry] = []
        for group, outcome in outcomes.items():
            if outcome.truth is not None:
                continue
            if outcome.problem:
                log.warning("ground truth cannot be resolved", **group._asdict(), reason=outcome.problem)
            if now > group.resolvable_at + self._timeout:
                reason = NO_GROUND_TRUTH if outcome.problem is None else f"{NO_GROUND_TRUTH}: {outcome.problem}"
                expiries += [Expiry(prediction.id, reason) for prediction in groups[group]]
            else:
                waits += [Wait(p.id, now + back_off(p.attempts), outcome.problem) for p in groups[group]]
        return waits, expiries


def back_off(attempts: int) -> timedelta:
    """How long to wait after so many attempts in vain, plus this one: 0.5 s, doubling up to 30 s."""
    doublings = min(attempts, 16)
    return timedelta(seconds=min(FIRST_WAIT_SECONDS * 2**doublings, LONGEST_WAIT_SECONDS))
