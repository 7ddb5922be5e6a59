"""Where the records of a backtest are, and which feed's they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from coordinator_node.backtest.download import Coordinator, RemoteDay
from coordinator_node.backtest.history import History, found_feeds, read_history
from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.services.feed_scope import FeedScope


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


@dataclass(frozen=True)
class Place:
    """A folder of daily files; or a coordinator, whose files are then kept in the folder.

    None for the folder means BACKFILL_DATA_DIR, for a coordinator's files the user's own cache.
    """

    folder: Path | None = None
    coordinator_url: str | None = None
    api_key: str | None = None

    def coordinator(self) -> Coordinator | None:
        """The coordinator that has the files, to be used as a context manager; None where there is none."""
        return Coordinator(self.coordinator_url, self.api_key, self.folder) if self.coordinator_url else None


class Records:
    """Finds out what is played, and reads it."""

    def __init__(self, place: Place, feed: Feed) -> None:
        self._place = place
        self._feed = feed

    def environment(self, config: CrunchConfig) -> tuple[CrunchConfig, Settings]:
        """The config with the schedules that are played, and the settings with the feed that they are played over.

        Raises:
            ConfigurationError: a variable is wrong, or it is not clear which feed is meant.
            CoordinatorError: the coordinator does not say what it has.
        """
        environ = dict(os.environ)
        environ |= _chosen(self._feed, environ, *self._there(load_settings(environ)))
        if self._feed.subjects is None and not (environ.get("FEED_SUBJECTS") or environ.get("FEED_ASSETS")):
            environ["FEED_SUBJECTS"] = ",".join(_subjects_of(config))
        settings = load_settings(environ)
        return config if self._feed.subjects is None else _only(config, settings.feed_subjects), settings

    def read(self, settings: Settings, start: datetime, end: datetime) -> History:
        """The records of [start, end] and those before it that fill the first window; fetched first where need be.

        Raises:
            ConfigurationError: there are none, or a file cannot be read.
            CoordinatorError: the coordinator does not give its files.
        """
        feed, window = FeedScope.from_settings(settings), settings.feed_candles_window
        coordinator = self._place.coordinator()
        if coordinator is None:
            root = self._place.folder or settings.backfill_data_dir
        else:
            root = coordinator.root
            with coordinator:
                there = coordinator.days(source=feed.source, kind=feed.kind, granularity=feed.granularity)
                for subject in settings.feed_subjects:
                    own = [day for day in there if day.subject == subject]
                    coordinator.fetch(_needed(own, (start - feed.lag).date(), (end - feed.lag).date(), window))
        return read_history(root, feed, settings.feed_subjects, start, end, window)

    def diversity(self, model_id: str) -> dict[str, Any] | None:
        """What the coordinator says of a deployed model; None without a coordinator.

        Raises:
            CoordinatorError: it does not know the model, or does not answer.
        """
        coordinator = self._place.coordinator()
        if coordinator is None:
            return None
        with coordinator:
            return coordinator.diversity(model_id)

    def _there(self, settings: Settings) -> tuple[list[tuple[str, str, str]], str]:
        """The (source, kind, granularity) that there are records of, and where that is."""
        coordinator = self._place.coordinator()
        if coordinator is None:
            root = self._place.folder or settings.backfill_data_dir
            return found_feeds(root), str(root)
        with coordinator:
            found = {(day.source, day.kind, day.granularity) for day in coordinator.days()}
        return sorted(found), self._place.coordinator_url or ""


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


def _needed(days: Sequence[RemoteDay], first: date, last: date, window: int) -> list[RemoteDay]:
    """Of one subject's days those that are played, and the newest before them that fill the first window."""
    older, found = sorted((day for day in days if day.day < first), key=lambda day: day.day), 0
    wanted = [day for day in days if first <= day.day <= last]
    while older and found < window:
        wanted.append(older.pop())
        found += wanted[-1].file.records or 0
    return wanted


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
