"""`BacktestRunner`: a model, a competition's config, and where the records are."""

from __future__ import annotations

import copy
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

from coordinator_node.backtest.history import History
from coordinator_node.backtest.judge import Judge
from coordinator_node.backtest.play import Play, Progress, play, schedules_of
from coordinator_node.backtest.records import Feed, Place, Records
from coordinator_node.backtest.result import BacktestResult, BacktestSet, Effort
from coordinator_node.backtest.rounds import Round, play_rounds, read_rounds, rounds_between
from coordinator_node.backtest.several import Job, run_all
from coordinator_node.backtest.standing import BESIDE, Standings, whole_run
from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.config_loader import load_config
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import RAISED_BY_CALLABLES, ConfigurationError
from coordinator_node.entities.json_values import reason_of
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.entities.times import as_utc
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.tournament_predict import is_tournament

type Moment = str | date | datetime
"""ISO 8601 text, a day (its first moment) or a time; UTC where it names no zone."""


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage in cycles less often: all that a run makes is kept, and looking through it takes a fifth."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class BacktestRunner:
    """Runs a model over past records by the very functions that run it live.

    Args:
        model: an instance, copied for each run; or a class or function that makes one for each run.
        config: the competition's; None means the one that a worker would load here.
        data: a folder of {source}/{subject}/{kind}/{granularity}/YYYY-MM-DD.parquet; None means BACKFILL_DATA_DIR.
            Of a tournament its rounds: a sequence of `Round`, or a Parquet file, or a folder of such, that
            `write_rounds` made.
        coordinator_url: where a coordinator's report API answers, whose files are taken instead: those of the days that
            are played, kept in `data` (else in the user's cache) and fetched again only when they changed.
        api_key: the coordinator's, where it asks for one.
        source: which feed's records; None means FEED_SOURCE, else the only one that `data` hold.
        kind: likewise, FEED_KIND.
        granularity: likewise, FEED_GRANULARITY.
        subjects: whose records models are ticked with; None means FEED_SUBJECTS, else the schedules' own. Schedules of
            other subjects are left out.
        window: how many records a model is given at once; None means FEED_CANDLES_WINDOW.
    """

    def __init__(
        self,
        model: Any,
        config: CrunchConfig | None = None,
        *,
        data: str | Path | Sequence[Round] | None = None,
        coordinator_url: str | None = None,
        api_key: str | None = None,
        source: str | None = None,
        kind: str | None = None,
        granularity: str | None = None,
        subjects: Sequence[str] | None = None,
        window: int | None = None,
    ) -> None:
        self._model = model
        self._config = load_config() if config is None else config
        self._rounds = _rounds_in(data) if is_tournament(self._config) else ()
        folder = Path(data) if isinstance(data, str | Path) else None
        if data is not None and folder is None and not is_tournament(self._config):
            raise ConfigurationError(
                "data holds rounds, but the config is not for tournaments: name a folder of records"
            )
        self._records = Records(
            Place(folder, coordinator_url, api_key),
            Feed(source, kind, granularity, (subjects,) if isinstance(subjects, str) else subjects, window),
        )

    def run(
        self,
        start: Moment,
        end: Moment,
        *,
        costs_bps: float = 0.0,
        model_id: str | None = None,
        progress: Progress | None = None,
    ) -> BacktestResult:
        """Play the model in [start, end); outcomes are looked for beyond `end`, as far as the horizons reach.

        Args:
            start: the first moment; records before it fill the model's first window.
            end: the first moment that is not played.
            costs_bps: basis points of the traded value that a change of position costs, for the equity curve.
            model_id: the id of the model where it is deployed; the coordinator is then asked for its diversity.
            progress: told how much is done, from 0 to 1.

        Raises:
            ConfigurationError: the config, the model or the period cannot be used, or there are no records.
            CoordinatorError: the coordinator does not give its files.
        """
        result = self._run(*_span(start, end), name=model_id, costs_bps=costs_bps, progress=progress)
        result.diversity = None if model_id is None else self._records.diversity(model_id)
        return result

    def walk_forward(
        self, start: Moment, end: Moment, folds: int = 5, *, costs_bps: float = 0.0, processes: int | None = None
    ) -> BacktestSet:
        """Runs over consecutive parts of [start, end), equally long, each with a model that has seen nothing.

        `processes` as in `several.run_all`.
        """
        first, last = _span(start, end)
        if folds < 1:
            raise ConfigurationError(f"folds is {folds}; there must be at least 1")
        bounds = [first + (last - first) * n / folds for n in range(folds + 1)]
        unit = "minutes" if (last - first) / folds >= timedelta(minutes=1) else "microseconds"
        jobs = [
            Job(begin.replace(tzinfo=None).isoformat(" ", unit), self._run, begin, until, costs_bps)
            for begin, until in pairwise(bounds)
        ]
        return BacktestSet(run_all(jobs, processes, "folds"))

    def compare(
        self,
        models: Mapping[str, Any],
        start: Moment,
        end: Moment,
        *,
        costs_bps: float = 0.0,
        processes: int | None = None,
    ) -> BacktestSet:
        """Runs of several models by name over the same records; metrics that compare models are taken among them.

        A model is what the runner takes for one. `processes` as in `several.run_all`.
        """
        span = _span(start, end)
        jobs = [Job(name, self._with(model)._run, *span, costs_bps) for name, model in models.items()]
        results = run_all(jobs, processes, "models")
        config, settings = self._environment()
        together = Standings(config, settings).of({name: result.judged for name, result in results.items()})
        for name, result in results.items():
            result.metrics |= together[name]
        return BacktestSet(results)

    def sweep(
        self,
        params: Mapping[str, Sequence[Any]],
        start: Moment,
        end: Moment,
        *,
        costs_bps: float = 0.0,
        processes: int | None = None,
    ) -> BacktestSet:
        """Runs of the model's class with every combination of these keyword arguments, by their text.

        `processes` as in `several.run_all`.
        """
        span = _span(start, end)
        is_instance = hasattr(self._model, self._config.call_method.method) and not isinstance(self._model, type)
        make: Callable[..., Any] = type(self._model) if is_instance else self._model
        jobs = []
        for values in product(*params.values()):
            chosen = dict(zip(params, values, strict=True))
            name = ", ".join(f"{key}={value}" for key, value in chosen.items())
            jobs.append(Job(name, self._with(partial(make, **chosen))._run, *span, costs_bps))
        return BacktestSet(run_all(jobs, processes, "parameters"))

    def _with(self, model: Any) -> BacktestRunner:
        other = copy.copy(self)
        other._model = model
        return other

    @_rare_collections()
    def _run(
        self,
        start: datetime,
        end: datetime,
        *,
        name: str | None,
        costs_bps: float,
        progress: Progress | None = None,
    ) -> BacktestResult:
        begun = time.perf_counter()
        config, settings = self._environment()
        model = fresh(self._model, config.call_method.method)
        name = name or type(model).__name__
        game = _Game(config, settings, name, (start, end), progress or _ignore)
        history, played = self._rounds_played(model, game) if is_tournament(config) else self._feed_played(model, game)
        judged = Judge(history, config, settings).all(played.predictions)
        result = BacktestResult(
            model_id=name,
            start=start,
            end=end,
            judged=judged,
            metrics=Standings(config, settings).of({name: judged})[name],
            costs_bps=costs_bps,
            missed=dict(played.missed),
            warnings=_warnings(played, sum(one.record.status is PredictionStatus.PENDING for one in judged)),
        )
        result.run_metrics |= whole_run(judged, result.numbers, [*dict.fromkeys([*config.metrics, *BESIDE])])
        result.metrics["net_mean_return"] = result.run_metrics["net_mean_return"] = result.equity.net_mean_return
        result.effort = Effort(played.bars, time.perf_counter() - begun, played.model_seconds)
        return result

    def _environment(self) -> tuple[CrunchConfig, Settings]:
        """The config with what is played of it, and the settings that it is played by."""
        if is_tournament(self._config):
            return self._config, load_settings(os.environ)
        return self._records.environment(self._config)

    def _feed_played(self, model: Any, game: _Game) -> tuple[History, Play]:
        """The records of the period, and what came of playing the schedules over them."""
        config, settings, name, (start, end), progress = game
        schedules = schedules_of(config, settings, FeedScope.from_settings(settings).spacing)
        longest = timedelta(seconds=max(schedule.horizon_seconds for schedule in schedules))
        history = self._records.read(settings, start, end + longest)
        return history, play(model, name, history, config, settings, schedules, (start, end), progress)

    def _rounds_played(self, model: Any, game: _Game) -> tuple[History, Play]:
        """What came of asking the rounds of the period, whose outcomes need no records."""
        config, settings, name, span, progress = game
        rounds = rounds_between(self._rounds, *span)
        no_records = History(FeedScope.from_settings(settings), {})
        return no_records, play_rounds(model, name, rounds, config, settings, progress)


class _Game(NamedTuple):
    """What one run plays: by what, under which name, in which period."""

    config: CrunchConfig
    settings: Settings
    name: str
    span: tuple[datetime, datetime]
    progress: Progress


def _rounds_in(data: str | Path | Sequence[Round] | None) -> Sequence[Round]:
    if data is None:
        raise ConfigurationError(
            "a tournament's backtest needs its rounds: data=[Round(…), …], or the Parquet file or folder that"
            " write_rounds made"
        )
    return read_rounds(Path(data)) if isinstance(data, str | Path) else data


def fresh(model: Any, method: str) -> Any:
    """A model that has seen nothing: made by its class or function, or copied.

    `method` is what an instance has and what makes one has not. An instance that cannot be copied is used as it is.

    Raises:
        ConfigurationError: none can be made, which live stops the model; the message says why.
    """
    if isinstance(model, type) or (callable(model) and not hasattr(model, method)):
        try:
            return model()
        except RAISED_BY_CALLABLES as error:  # a stranger's class may raise anything when it is made
            raise ConfigurationError(f"the model cannot be made: {reason_of(error)}") from error
    try:
        return copy.deepcopy(model)
    except Exception:  # what a stranger's object does when it is copied is its own affair
        return model


def _span(start: Moment, end: Moment) -> tuple[datetime, datetime]:
    span = moment_of(start), moment_of(end)
    if span[0] >= span[1]:
        raise ConfigurationError(
            f"the period's start {span[0].isoformat()} is not before its end {span[1].isoformat()}"
        )
    return span


def moment_of(given: Moment) -> datetime:
    """The moment that is meant.

    Raises:
        ConfigurationError: a text that is no time.
    """
    if isinstance(given, str):
        try:
            return as_utc(datetime.fromisoformat(given))
        except ValueError:
            raise ConfigurationError(f"{given!r} is no time such as 2026-01-31 or 2026-01-31T12:00:00Z") from None
    if isinstance(given, datetime):
        return as_utc(given)
    return datetime(given.year, given.month, given.day, tzinfo=UTC)


def _warnings(played: Play, pending: int) -> list[str]:
    said = [f"{count:,} slots were missed: {reason}" for reason, count in played.missed.items()]
    if played.failed_ticks:
        said.append(f"tick raised {played.failed_ticks:,} times, first: {played.tick_problem}")
    if played.late:
        said.append(f"{played.late:,} answers took longer than the deadline; live they would have failed as timeouts")
    if pending:
        said.append(f"{pending:,} predictions wait for outcomes beyond the records there are")
    return said


def _ignore(_: float) -> None:
    """Nobody wants to know."""
