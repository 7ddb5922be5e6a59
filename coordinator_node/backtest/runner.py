"""`BacktestRunner`: a model, a competition's config, and where the records are."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from coordinator_node.backtest.download import Coordinator
from coordinator_node.backtest.history import History, days_needed, found_feeds, read_history
from coordinator_node.backtest.judge import Judge
from coordinator_node.backtest.play import Play, Progress, play, refuse_tournament, schedules_of
from coordinator_node.backtest.result import BacktestResult, BacktestSet, Effort
from coordinator_node.backtest.several import Job, run_all
from coordinator_node.backtest.standing import BESIDE, Standings, whole_run
from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.config_loader import load_config
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.entities.times import as_utc
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.predict.grid import Schedule

type Moment = str | date | datetime
"""ISO 8601 text, a day (its first moment) or a time; UTC where it names no zone."""

type MakeModel = Callable[[], Any]


@dataclass(frozen=True)
class Feed:
    """Which records to play; what is None is taken from FEED_* variables, else from what the data hold.

    `subjects` None means those that the schedules name.
    """

    source: str | None = None
    kind: str | None = None
    granularity: str | None = None
    subjects: Sequence[str] | None = None
    window: int | None = None


class BacktestRunner:
    """Runs a model over past records by the very functions that run it live.

    Args:
        model: an instance, copied for each run; or a class or function that makes one for each run.
        config: the competition's; None means the one that a worker would load here.
        data: a folder of {source}/{subject}/{kind}/{granularity}/YYYY-MM-DD.parquet; None means BACKFILL_DATA_DIR.
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
        data: str | Path | None = None,
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
        self._data = None if data is None else Path(data)
        self._remote = (coordinator_url, api_key)
        self._feed = Feed(source, kind, granularity, subjects, window)

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
        result.diversity = self._diversity(model_id)
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
        jobs = [Job(f"{begin:%Y-%m-%d %H:%M}", self._run, begin, until, costs_bps) for begin, until in pairwise(bounds)]
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
        is_instance = hasattr(self._model, self._config.call_method.tick_method) and not isinstance(self._model, type)
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
        span = (start, end)
        config, settings, schedules, history = self._prepared(span)
        model = fresh(self._model, config.call_method.tick_method)
        name = name or type(model).__name__
        played = play(model, name, history, config, settings, schedules, span, progress or _ignore)
        judged = Judge(history, config, settings).all(played.predictions)
        metrics = Standings(config, settings).of({name: judged})[name]
        result = BacktestResult(
            model_id=name,
            start=span[0],
            end=span[1],
            judged=judged,
            metrics=metrics,
            run_metrics=whole_run(judged, [*dict.fromkeys([*config.metrics, *BESIDE])]),
            costs_bps=costs_bps,
            missed=dict(played.missed),
            warnings=_warnings(played, sum(one.record.status is PredictionStatus.PENDING for one in judged)),
            effort=Effort(played.bars, time.perf_counter() - begun, played.model_seconds),
        )
        result.metrics["net_mean_return"] = result.run_metrics["net_mean_return"] = result.equity.net_mean_return
        return result

    def _prepared(self, span: tuple[datetime, datetime]) -> tuple[CrunchConfig, Settings, list[Schedule], History]:
        config, settings = self._environment()
        feed = FeedScope.from_settings(settings)
        schedules = schedules_of(config, settings, feed.spacing)
        last = span[1] + timedelta(seconds=max(schedule.horizon_seconds for schedule in schedules))
        self._fetch(feed, settings, span[0], last)
        history = read_history(
            self._root(settings), feed, settings.feed_subjects, span[0], last, settings.feed_candles_window
        )
        return config, settings, schedules, history

    def _root(self, settings: Settings) -> Path:
        if self._remote[0]:
            with self._coordinator() as coordinator:
                return coordinator.root
        return self._data or settings.backfill_data_dir

    def _coordinator(self) -> Coordinator:
        url, api_key = self._remote
        return Coordinator(url or "", api_key, self._data)

    def _there(self, root: Path) -> list[tuple[str, str, str]]:
        """The (source, kind, granularity) that there are records of."""
        if not self._remote[0]:
            return found_feeds(root)
        with self._coordinator() as coordinator:
            return sorted({(day.source, day.kind, day.granularity) for day in coordinator.days()})

    def _fetch(self, feed: FeedScope, settings: Settings, start: datetime, end: datetime) -> None:
        """Bring the files of the days that are played up to date."""
        if not self._remote[0]:
            return
        first, last = days_needed(start, end, feed, settings.feed_candles_window)
        with self._coordinator() as coordinator:
            there = coordinator.days(source=feed.source, kind=feed.kind, granularity=feed.granularity)
            wanted = [day for day in there if day.subject in settings.feed_subjects and first <= day.day <= last]
            for _ in coordinator.fetch(wanted):
                pass

    def _diversity(self, model_id: str | None) -> dict[str, Any] | None:
        if model_id is None or not self._remote[0]:
            return None
        with self._coordinator() as coordinator:
            return coordinator.diversity(model_id)

    def _environment(self) -> tuple[CrunchConfig, Settings]:
        """The config with the schedules that are played, and the settings with the feed that they are played over."""
        refuse_tournament(self._config)
        environ = dict(os.environ)
        root = self._root(load_settings(environ))
        environ |= _chosen(self._feed, environ, self._there(root), self._remote[0] or str(root))
        if self._feed.subjects is None and not (environ.get("FEED_SUBJECTS") or environ.get("FEED_ASSETS")):
            environ["FEED_SUBJECTS"] = ",".join(_subjects_of(self._config))
        settings = load_settings(environ)
        if self._feed.subjects is None:
            return self._config, settings
        return _only(self._config, settings.feed_subjects), settings


def fresh(model: Any, tick_method: str) -> Any:
    """A model that has seen nothing: made by its class or function, or copied.

    An instance that cannot be copied is used as it is.
    """
    if isinstance(model, type) or (callable(model) and not hasattr(model, tick_method)):
        return model()
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
    return as_utc(datetime(given.year, given.month, given.day))  # noqa: DTZ001 - as_utc gives it its zone


def _chosen(
    feed: Feed, environ: Mapping[str, str], there: Sequence[tuple[str, str, str]], where: str
) -> dict[str, str]:
    """The FEED_* variables of the feed that is played."""
    wanted = {
        "FEED_SOURCE": feed.source or environ.get("FEED_SOURCE") or environ.get("FEED_PROVIDER"),
        "FEED_KIND": feed.kind or environ.get("FEED_KIND"),
        "FEED_GRANULARITY": feed.granularity or environ.get("FEED_GRANULARITY"),
    }
    fitting = [
        each
        for each in there
        if all(want is None or want.strip().lower() == has for want, has in zip(wanted.values(), each, strict=True))
    ]
    if len(fitting) != 1:
        found = "; there is " + (", ".join("/".join(each) for each in there) or "nothing")
        asked = " ".join(f"{name}={value}" for name, value in wanted.items() if value) or "any feed"
        many = "no records" if not fitting else "several feeds"
        raise ConfigurationError(f"{many} of {asked} in {where}{found}: name source, kind and granularity of one")
    more = {} if feed.window is None else {"FEED_CANDLES_WINDOW": str(feed.window)}
    more |= {} if feed.subjects is None else {"FEED_SUBJECTS": ",".join(feed.subjects)}
    return {**dict(zip(wanted, fitting[0], strict=True)), **more}


def _subjects_of(config: CrunchConfig) -> list[str]:
    active = [each for each in config.scheduled_predictions if each.active]
    in_order = sorted(active, key=lambda each: each.order)
    return list(dict.fromkeys(str(each.scope.get("subject") or config.scope.subject) for each in in_order))


def _only(config: CrunchConfig, subjects: Sequence[str]) -> CrunchConfig:
    """The config without the schedules of other subjects."""
    kept = [
        each for each in config.scheduled_predictions if (each.scope.get("subject") or config.scope.subject) in subjects
    ]
    return config.model_copy(update={"scheduled_predictions": kept})


def _warnings(played: Play, judged_pending: int) -> list[str]:
    said = [f"{count:,} slots were missed: {reason}" for reason, count in played.missed.items()]
    if played.failed_ticks:
        said.append(f"tick raised {played.failed_ticks:,} times, first: {played.tick_problem}")
    if played.late:
        said.append(f"{played.late:,} answers took longer than the deadline; live they would have failed as timeouts")
    if judged_pending:
        said.append(f"{judged_pending:,} predictions wait for outcomes beyond the records there are")
    return said


def _ignore(_: float) -> None:
    """Nobody wants to know."""


__all__ = ["BacktestRunner", "Feed", "days_needed", "moment_of"]
