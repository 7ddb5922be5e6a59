"""Scores and snapshots of a cycle made again: what the live stage does, from what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.copying import copy_rows
from coordinator_node.db.json_text import encode_json
from coordinator_node.entities.ids import new_id, new_ids
from coordinator_node.entities.prediction import SnapshotState
from coordinator_node.services.rescore.period import Period
from coordinator_node.services.rescore.staging import (
    Cycle,
    ReplacedSnapshot,
    ScoredBefore,
    parsed_output,
    read_cycles,
)
from coordinator_node.services.score.claim import GroupKey, grouped
from coordinator_node.services.score.scoring import Scorer, Verdict
from coordinator_node.services.score.store import read_truths
from coordinator_node.services.snapshot.observations import Observation, ObservationStore
from coordinator_node.services.snapshot.summary import aggregator_of, summarise
from coordinator_node.services.snapshot.uncounted import UncountedScore
from coordinator_node.services.snapshot.window_metrics import window_metrics
from coordinator_node.services.snapshot.window_tables import Span
from coordinator_node.services.window_sums import hours_before

type Truths = Mapping[GroupKey, dict[str, Any]]

_SCORE_COLUMNS = (
    "id",
    "prediction_id",
    "result_jsonb",
    "success",
    "failed_reason",
    "scored_at",
    "generation",
    "snapshot_state",
    "snapshot_id",
)
_SNAPSHOT_COLUMNS = (
    "id",
    "model_id",
    "period_start",
    "period_end",
    "prediction_count",
    "result_summary_jsonb",
    "meta_jsonb",
    "created_at",
    "cycle_id",
    "origin_id",
)


class Rescored(NamedTuple):
    """A prediction's score of the new generation."""

    verdict: Verdict
    observation: Observation


@dataclass
class Counts:
    """What came of the predictions: `scored` and `failed` add up to those that were scored again.

    `differing` are those of them whose success or result is another than before, `without_truth` those of the period
    whose truth is not stored, `beside` those outside the period that share a snapshot with some of it; both keep the
    score they have. `reasons` counts why they failed.
    """

    scored: int = 0
    failed: int = 0
    differing: int = 0
    without_truth: int = 0
    beside: int = 0
    snapshots: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class CycleScorer:
    """Makes cycles again, in the order in which the live stage made them, into `new_scores` and `new_snapshots`.

    Args:
        config: as for the live stage; its scoring_function may be another.
        settings: likewise.
        period: which predictions are scored again.
        generation: what their scores will be.
        now: becomes their scored_at, and the snapshots' created_at.
        store: the leader's memory as of the period's beginning; metrics are taken over it, fed as it goes.
    """

    def __init__(
        self,
        config: CrunchConfig,
        settings: Settings,
        period: Period,
        generation: int,
        now: datetime,
        store: ObservationStore,
    ) -> None:
        self._config = config
        self._scorer = Scorer(config, settings)
        self._aggregator = aggregator_of(config, settings)
        self._period = period
        self._generation = generation
        self._now = now
        self._store = store
        self.counts = Counts()

    def work_on(self, session: Session, first: int, last: int) -> None:
        """Make these cycles; commits. The scoring function is called with no transaction open."""
        cycles = read_cycles(session, self._period, first, last)
        to_score = [one.claimed for cycle in cycles for one in cycle.scored if one.in_period]
        truths = read_truths(session, grouped(to_score))
        session.commit()
        made = [(cycle, [self._score(one, truths) for one in cycle.scored]) for cycle in cycles]
        for cycle, scores in made:
            self._store_cycle(session, cycle, scores)
        session.commit()

    def _score(self, before: ScoredBefore, truths: Truths) -> Rescored:
        verdict = self._verdict(before, truths)
        seen = before.observation
        if verdict is None:
            return Rescored(Verdict(before.claimed.id, before.success, seen.result, before.failed_reason), seen)
        self._count(before, verdict)
        return Rescored(verdict, seen._replace(result=verdict.result or {}, scored_at=self._now))

    def _verdict(self, before: ScoredBefore, truths: Truths) -> Verdict | None:
        """The new verdict; None where the prediction keeps what it has."""
        claimed = before.claimed
        if not before.in_period:
            self.counts.beside += 1
            return None
        truth = truths.get(GroupKey(claimed.input_id, claimed.scope_key, claimed.resolvable_at))
        if truth is None:
            self.counts.without_truth += 1
            return None
        return self._scorer.score(claimed.id, claimed.model_id, parsed_output(before), truth)

    def _count(self, before: ScoredBefore, verdict: Verdict) -> None:
        self.counts.scored += verdict.success
        self.counts.failed += not verdict.success
        if not verdict.success:
            self.counts.reasons[verdict.failed_reason or ""] += 1
        was = (before.success, before.observation.result)
        self.counts.differing += was != (verdict.success, verdict.result or {})

    def _store_cycle(self, session: Session, cycle: Cycle, made: Sequence[Rescored]) -> None:
        """Sum up one cycle as the live stage did, as of when it did, and stage what came of it."""
        scores = [
            UncountedScore(score_id, one.verdict.prediction_id, one.verdict.success, self._generation, one.observation)
            for score_id, one in zip(new_ids(len(made)), made, strict=True)
        ]
        counted_at = next(iter(cycle.replaced.values())).created_at
        span = Span(hours_before(counted_at, self._config.metrics_window_hours), counted_at)
        self._store.forget_before(span.after)
        self._store.feed(score.observation for score in scores if score.success)
        summaries = summarise(scores, cycle.misses, self._aggregator, self._config.aggregation.value_field)
        metrics = window_metrics(self._store, self._config, [summary.model_id for summary in summaries], span)
        snapshot_of = dict(zip((summary.model_id for summary in summaries), new_ids(len(summaries)), strict=True))
        cycle_id = new_id()
        copy_rows(
            session,
            "new_snapshots",
            _SNAPSHOT_COLUMNS,
            [
                (
                    snapshot_of[summary.model_id],
                    summary.model_id,
                    cycle.replaced[summary.model_id].period_start,
                    cycle.replaced[summary.model_id].period_end,
                    summary.prediction_count,
                    encode_json({**summary.summary, **metrics.get(summary.model_id, {})}),
                    encode_json({**summary.meta, **self._meta(cycle.replaced[summary.model_id])}),
                    self._now,
                    cycle_id,
                    cycle.replaced[summary.model_id].origin_id,
                )
                for summary in summaries
            ],
        )
        copy_rows(session, "new_scores", _SCORE_COLUMNS, self._score_rows(scores, made, snapshot_of))
        self.counts.snapshots += len(summaries)

    def _meta(self, replaced: ReplacedSnapshot) -> dict[str, Any]:
        """What a new snapshot's meta says besides the summary's: where it counts, and what it stands in for."""
        rescore = {"generation": self._generation, "replaces": replaced.snapshot_id}
        return {"rescore": rescore} if replaced.late is None else {"rescore": rescore, "late": replaced.late}

    def _score_rows(
        self, scores: Sequence[UncountedScore], made: Sequence[Rescored], snapshot_of: Mapping[str, str]
    ) -> Iterator[tuple[Any, ...]]:
        for score, (verdict, observation) in zip(scores, made, strict=True):
            yield (
                score.id,
                verdict.prediction_id,
                encode_json(verdict.result or {}),
                verdict.success,
                verdict.failed_reason,
                observation.scored_at,
                self._generation,
                SnapshotState.COUNTED.value,
                snapshot_of[score.model_id],
            )
