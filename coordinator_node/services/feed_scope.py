"""Which records of the feed the stages read, how far apart they are, and when each is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from coordinator_node.config.settings import Settings
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.feeds.contracts import known_delay

REPLAY = "replay"


@dataclass(frozen=True)
class FeedScope:
    """The feed of the settings, without its subjects.

    `spacing` is the seconds on the wall clock between two records. `known_lag` is how many seconds after its ts_event a
    record is known: 0 for a tick; one spacing for a candle, whose ts_event is its open time.
    """

    source: str
    kind: str
    granularity: str
    spacing: float
    known_lag: float

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The scope of FEED_SOURCE, FEED_KIND and FEED_GRANULARITY.

        Raises:
            ConfigurationError: FEED_OPT_speed of the replay source is no positive number.
        """
        spacing = feed_spacing_seconds(settings)
        lag = known_delay(settings.feed_kind, spacing).total_seconds()
        return cls(_source(settings), settings.feed_kind, settings.feed_granularity, spacing, lag)

    @property
    def lag(self) -> timedelta:
        """`known_lag` as a time span."""
        return timedelta(seconds=self.known_lag)


def feed_spacing_seconds(settings: Settings) -> float:
    """Seconds on the wall clock between two records: the granularity, for `replay` divided by FEED_OPT_speed.

    Raises:
        ConfigurationError: FEED_OPT_speed of the replay source is no positive number.
    """
    spacing = float(granularity_seconds(settings.feed_granularity))
    return spacing / _replay_speed(settings) if _source(settings) == REPLAY else spacing


def _source(settings: Settings) -> str:
    """The source as the registry of feeds names it, which knows no upper case."""
    return settings.feed_source.strip().lower()


def _replay_speed(settings: Settings) -> float:
    options = {name.lower(): value.strip() for name, value in settings.feed_options.items()}
    text = options.get("speed") or "1"
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise ConfigurationError(f"FEED_OPT_speed={text} must be a number above 0")
    return speed
