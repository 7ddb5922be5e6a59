"""Outcomes and scores of what was played, by the functions of the score stage."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from coordinator_node.backtest.history import History
from coordinator_node.backtest.play import Played
from coordinator_node.backtest.stored import as_stored
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus
from coordinator_node.services.feed_windows import cut
from coordinator_node.services.ground_truth import NOT_YET, Outcome, TruthResolver
from coordinator_node.services.predict.round_calls import UNTIL_TRUTH
from coordinator_node.services.score.scoring import Scorer, State, Verdict
from coordinator_node.services.score.service import NO_GROUND_TRUTH


class Judged(NamedTuple):
    """A prediction with what came of it.

    `truth` is None where it is not known, `verdict` where nothing was scored. A record that is still PENDING waits for
    records beyond those there are.
    """

    record: PredictionRecord
    failed_reason: str | None
    truth: dict[str, Any] | None = None
    verdict: Verdict | None = None

    @property
    def resolvable_at(self) -> datetime:
        """When its outcome was known."""
        return self.record.resolvable_at or self.record.performed_at

    @property
    def has_ended(self) -> bool:
        """Whether it counts: it is not waiting for its outcome, nor is it a failure whose row still waits for one."""
        return self.record.status is not PredictionStatus.PENDING and self.resolvable_at < UNTIL_TRUTH

    @property
    def result(self) -> dict[str, Any]:
        """What the scoring function said; {} where it said nothing."""
        return (self.verdict.result if self.verdict else None) or {}


class Judge:
    """Scores predictions as the score stage does, each truth resolved once the records reach its moment.

    Raises:
        ConfigurationError: when made, for a scoring function that cannot be used.
    """

    def __init__(self, history: History, config: CrunchConfig, settings: Settings) -> None:
        self._lag = history.feed.lag
        self._subjects = history.subjects
        self._known_until = {
            name: own.newest + self._lag for name, own in history.subjects.items() if own.newest is not None
        }
        self._resolver = TruthResolver(config, settings)
        self._scorer = Scorer(config, settings)
        self._stateful = config.stateful_scoring
        self._state: State = {}

    def all(self, played: Iterable[Played]) -> list[Judged]:
        """All of one model's predictions, judged in the order of their outcomes."""
        in_order = sorted(played, key=lambda one: (one.record.resolvable_at or one.record.performed_at, one.record.id))
        return [self._judge(one) for one in in_order]

    def _judge(self, one: Played) -> Judged:
        record = one.record
        if record.status is not PredictionStatus.PENDING:
            return Judged(record, one.failed_reason)
        outcome = self._outcome(one)
        if outcome is None:
            return Judged(record, None)
        if outcome.truth is None:
            # Live it is looked for until GROUND_TRUTH_TIMEOUT_SECONDS; the records of its window change no more.
            record.status = PredictionStatus.FAILED
            return Judged(record, f"{NO_GROUND_TRUTH}: {outcome.problem}" if outcome.problem else NO_GROUND_TRUTH)
        verdict = self._score(record, outcome.truth)
        record.status = PredictionStatus.SCORED if verdict.success else PredictionStatus.FAILED
        if verdict.result:
            verdict = Verdict(record.id, verdict.success, as_stored(verdict.result), verdict.failed_reason)
        return Judged(record, verdict.failed_reason, outcome.truth, verdict)

    def _outcome(self, one: Played) -> Outcome | None:
        """The outcome of a prediction; None where the feed has not reached it yet."""
        if one.given is not None:
            return Outcome(one.given)
        window = self._resolver.window_of(one.record)
        known_until = self._known_until.get(window.subject)
        if known_until is None or known_until < window.end:
            return None
        history = self._subjects[window.subject]
        records = cut(history.records, history.times, window, self._lag)
        return self._resolver.outcome(records, one.record) if records else NOT_YET

    def _score(self, record: PredictionRecord, truth: dict[str, Any]) -> Verdict:
        if not self._stateful:
            return self._scorer.score(record.id, record.model_id, record.inference_output, truth)
        verdict, self._state = self._scorer.score_keeping(
            record.id, record.model_id, record.inference_output, truth, self._state
        )
        return verdict
