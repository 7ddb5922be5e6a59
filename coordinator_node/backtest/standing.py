"""How a model stands at the end of a backtest: windows and metrics, by the functions of the snapshot stage.

Scores are counted in cycles, as the score worker's leader does: one at every whole multiple of SCORE_INTERVAL_SECONDS,
of everything that was resolvable by then, and a snapshot a cycle. What is wanted is the last of it, so only the cycles
that a window holds are summed up.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from coordinator_node.backtest.judge import Judged
from coordinator_node.backtest.numbers import Numbers
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, default_compute_metrics
from coordinator_node.db.json_text import encode_json
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.entities.times import from_epoch
from coordinator_node.metrics import get_default_registry
from coordinator_node.metrics.observations import ObservationTable
from coordinator_node.metrics.values import as_number
from coordinator_node.services.checkpoint_periods import OpenPeriod
from coordinator_node.services.generations import LIVE_GENERATION
from coordinator_node.services.snapshot.observations import Observation, ObservationStore
from coordinator_node.services.snapshot.stage import MICROSECOND
from coordinator_node.services.snapshot.summary import aggregated, aggregator_of, summarise
from coordinator_node.services.snapshot.uncounted import Miss, UncountedScore
from coordinator_node.services.snapshot.window_metrics import needs_rows, window_metrics
from coordinator_node.services.snapshot.window_tables import Span
from coordinator_node.services.window_sums import Sums, hours_before, window_starts

BESIDE = ("ic", "ic_sharpe", "hit_rate", "mean_return", "max_drawdown", "sortino_ratio", "turnover")
"""The metrics that a backtest gives whatever the config asks for."""

# Floats and their sums have fewer digits than this; should one not, it raises rather than rounds.
_EXACT = Context(prec=2000, traps=[Inexact])


@dataclass
class Part:
    """What one cycle counts in one checkpoint period: a snapshot."""

    counted_at: datetime
    ends: datetime
    scores: list[UncountedScore] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)

    @property
    def period_end(self) -> datetime:
        """The snapshot's period_end."""
        if len(self.scores) == 1 and not self.misses:
            return self.scores[0].resolvable_at
        ends = [score.resolvable_at for score in self.scores] + [miss.resolvable_at for miss in self.misses]
        return max(ends)

    @property
    def has_successes(self) -> bool:
        """Whether it counts any score."""
        return any(score.success for score in self.scores)


def parts_of(judged: Sequence[Judged], config: CrunchConfig, settings: Settings) -> list[Part]:
    """The snapshots that there would be of these predictions (in the order of their outcomes), first ones first.

    Those that are older than anything that is looked at are left out.
    """
    seconds = settings.score_cycle_seconds
    ended = [one for one in judged if one.has_ended]
    if not ended:
        return []
    length = timedelta(seconds=settings.checkpoint_interval_seconds)
    period = OpenPeriod(settings.checkpoint_start or ended[0].record.performed_at, length, follows=False)
    first = bisect_right(ended, _looked_at_after(ended, config, seconds), key=lambda one: one.resolvable_at)
    parts: dict[tuple[datetime, datetime | None], Part] = {}
    texts: dict[str, str] = {}
    for one in ended[first:]:
        counted_at = from_epoch(math.ceil(one.resolvable_at.timestamp() / seconds) * seconds)
        start = period.period_of(one.resolvable_at)
        part = parts.get((counted_at, start))
        if part is None:
            ends = period.start if start is None else start + period.length
            part = parts[counted_at, start] = Part(counted_at, ends)
        # The slots of a schedule share its scope; each row of a round has one of its own.
        owner = one.record.prediction_config_id or one.record.input_id
        if owner not in texts:
            texts[owner] = encode_json(one.record.scope)
        _count(part, one, texts[owner])
    return list(parts.values())


def _looked_at_after(ended: Sequence[Judged], config: CrunchConfig, cycle_seconds: float) -> datetime:
    """A moment before all that the windows and the metrics of the last score hold, by a cycle and more."""
    scored = next((one for one in reversed(ended) if one.record.status is PredictionStatus.SCORED), ended[-1])
    hours = [window.hours for window in config.aggregation.windows.values()]
    begins = hours_before(scored.resolvable_at, max([config.metrics_window_hours, *hours]))
    return hours_before(begins, math.ceil(cycle_seconds / 3600))


def _count(part: Part, one: Judged, scope_text: str) -> None:
    record = one.record
    if one.verdict is None:
        miss = Miss(record.id, record.model_id, record.scope_key, record.status, record.performed_at, one.resolvable_at)
        part.misses.append(miss)
    else:
        observation = observation_of(one, part.counted_at, scope_text)
        part.scores.append(UncountedScore(record.id, record.id, one.verdict.success, LIVE_GENERATION, observation))


def observation_of(one: Judged, scored_at: datetime, scope_text: str) -> Observation:
    """A scored prediction as the leader remembers it; `scope_text` is its scope as JSON."""
    record, truth = one.record, one.truth or {}
    return Observation(
        record.model_id,
        record.input_id,
        record.scope_key,
        record.performed_at,
        one.resolvable_at,
        record.inference_output,
        one.result,
        {"actual_return": truth.get("actual_return"), "profit": truth.get("profit")},
        scope_text,
        scored_at,
    )


class Standings:
    """Windows and metrics of models at the end of a backtest, by one config.

    Raises:
        ConfigurationError: when made: the aggregator cannot be imported.
    """

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._aggregator = aggregator_of(config, settings)

    def of(self, judged: dict[str, Sequence[Judged]]) -> dict[str, dict[str, float]]:
        """By model id, of models that were played over the same slots: windows, config's metrics, and BESIDE.

        The windows are those of the leaderboard after the last cycle; the metrics are those of the last snapshot that
        counts a score. What is undefined is NaN.
        """
        parts = {model_id: parts_of(own, self._config, self._settings) for model_id, own in judged.items()}
        last = max((part.counted_at for own in parts.values() for part in own), default=None)
        undefined = dict.fromkeys([*self._config.aggregation.windows, *self._names()], math.nan)
        if last is None:
            return {model_id: dict(undefined) for model_id in judged}
        found = {model_id: undefined | self._windows(own, last) for model_id, own in parts.items()}
        for model_id, values in self._metrics(parts).items():
            found[model_id] |= {name: math.nan if value is None else value for name, value in values.items()}
        return found

    def _names(self) -> list[str]:
        return list(dict.fromkeys([*self._config.metrics, *BESIDE]))

    def _windows(self, parts: Sequence[Part], as_of: datetime) -> dict[str, float]:
        aggregation = self._config.aggregation
        starts = window_starts(aggregation, as_of)
        earliest = min(starts.values(), default=as_of)
        counted = [(ended_at, self._counted(part)) for part in parts if (ended_at := part.period_end) > earliest]
        means = {
            name: _sums_of([one for ended_at, one in counted if ended_at > start]).mean(aggregation.missing_score)
            for name, start in starts.items()
        }
        return {name: math.nan if mean is None else mean for name, mean in means.items()}

    def _counted(self, part: Part) -> _Counted:
        """What windows read of the part's snapshot; most hold one score and nothing else, whose sum is quickly made."""
        field = self._config.aggregation.value_field
        if len(part.scores) == 1 and not part.misses and part.scores[0].success:
            try:
                summary = aggregated([dict(part.scores[0].observation.result)], self._aggregator)
                return _counted(summary.get(field), 1, 0)
            except RAISED_BY_CALLABLES:  # an operator's aggregator may raise anything: `summarise` says and counts it
                pass
        made = summarise(part.scores, part.misses, self._aggregator, field)[0]
        return _counted(made.summary.get(field), made.prediction_count, made.meta["missing_count"])

    def _metrics(self, parts: dict[str, list[Part]]) -> dict[str, dict[str, float | None]]:
        """The metrics of each model's last snapshot with a score; models whose last ones were one cycle, together."""
        last = {
            model_id: max((part for part in own if part.has_successes), key=lambda part: part.period_end)
            for model_id, own in parts.items()
            if any(part.has_successes for part in own)
        }
        found: dict[str, dict[str, float | None]] = {}
        for moment, ends in sorted({(part.counted_at, part.ends) for part in last.values()}):
            ids = [model_id for model_id, part in last.items() if (part.counted_at, part.ends) == (moment, ends)]
            found |= self._metrics_at(parts, ids, moment, ends)
        return found

    def _metrics_at(
        self, parts: dict[str, list[Part]], model_ids: Sequence[str], counted_at: datetime, ends: datetime
    ) -> dict[str, dict[str, float | None]]:
        config = self._config
        store = ObservationStore(keep_rows=needs_rows(config))
        begins = hours_before(counted_at, config.metrics_window_hours)
        store.feed(
            score.observation
            for own in parts.values()
            for part in own
            if part.counted_at < counted_at or (part.counted_at == counted_at and part.ends <= ends)
            for score in part.scores
            if score.success and score.resolvable_at > begins
        )
        until = min(counted_at, ends - MICROSECOND)
        span = Span(hours_before(until, config.metrics_window_hours), until)
        found = window_metrics(store, config, model_ids, span)
        beside = [name for name in BESIDE if name not in config.metrics]
        built_in = config.model_copy(update={"metrics": beside, "compute_metrics": default_compute_metrics})
        for model_id, values in window_metrics(store, built_in, model_ids, span).items():
            found[model_id] = {**values, **found[model_id]}
        return found


class _Counted(NamedTuple):
    """What `window_sums` reads of a snapshot: the exact value of its number's text, times its predictions."""

    total: Decimal
    weight: int
    missing: int


def _counted(given: Any, count: int, missing: int) -> _Counted:
    value = as_number(given)
    if value is None:
        return _Counted(Decimal(0), 0, missing)
    return _Counted(_EXACT.multiply(Decimal(repr(value)), count), count, missing)


def _sums_of(counted: Sequence[_Counted]) -> Sums:
    total = reduce(_EXACT.add, [one.total for one in counted], Decimal(0))
    return Sums(Fraction(total), sum(one.weight for one in counted), sum(one.missing for one in counted))


def whole_run(judged: Sequence[Judged], numbers: Numbers, names: Sequence[str]) -> dict[str, float]:
    """Built-in metrics of one model over all of its scored predictions; NaN where undefined.

    Those that compare models are undefined here.
    """
    registry = get_default_registry()
    values: dict[str, float] = {}
    table = _table(judged, numbers)
    if table.signals.size:
        until = max(one.resolvable_at for one in judged)
        values = registry.compute_table(list(names), table, until)[table.model_ids[0]]
    return {name: values.get(name, math.nan) for name in names if registry.is_table_measure(name)}


def _table(judged: Sequence[Judged], numbers: Numbers) -> ObservationTable:
    records = [one.record for one in judged]
    keys = [(record.performed_at, record.scope_key, record.input_id) for record in records]
    places = np.array(sorted(np.flatnonzero(numbers.scored).tolist(), key=keys.__getitem__), dtype=np.intp)
    return ObservationTable(
        model_ids=(records[0].model_id if records else "",),
        scopes=numbers.scopes[places],
        signals=numbers.signals[None, places],
        scores=numbers.scores[None, places],
        returns=numbers.returns[None, places],
    )
