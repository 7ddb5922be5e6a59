"""Sources by name: the engine's own, and those that installed packages bring."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points

from coordinator_node.feeds.base import DataFeed
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.options import options_from_env

ENTRY_POINT_GROUP = "coordinator_node.feeds"


@dataclass(frozen=True)
class FeedSettings:
    """What a source is made from: its name, and its options as they follow FEED_OPT_ in the environment."""

    provider: str
    options: dict[str, str] = field(default_factory=dict)


type FeedFactory = Callable[[FeedSettings], DataFeed]


class DataFeedRegistry:
    """Factories of sources by name; upper and lower case are the same name."""

    def __init__(self) -> None:
        self._factories: dict[str, FeedFactory] = {}

    def register(self, provider: str, factory: FeedFactory, *, replace: bool = False) -> None:
        """Adds a source.

        Raises:
            ValueError: the name is empty, or taken and `replace` is not set.
        """
        name = provider.strip().lower()
        if not name:
            raise ValueError("a feed provider needs a name")
        if name in self._factories and not replace:
            raise ValueError(f"a feed provider named {name!r} is registered already: pass replace=True, or rename it")
        self._factories[name] = factory

    def providers(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._factories)

    def create(self, provider: str, options: Mapping[str, str] | None = None) -> DataFeed:
        """Makes the source of that name.

        Raises:
            PermanentFeedError: no such source (the message lists what there is), an option that it refuses, or a
                factory that gave something else.
        """
        name = provider.strip().lower()
        factory = self._factories.get(name)
        if factory is None:
            raise PermanentFeedError(f"there is no FEED_SOURCE={provider}; there is {', '.join(self.providers())}")
        feed = factory(FeedSettings(provider=name, options=dict(options or {})))
        if not isinstance(feed, DataFeed):
            raise PermanentFeedError(
                f"FEED_SOURCE={name} gave a {type(feed).__name__}, which is no source: "
                "it needs the coroutines list_subjects, listen and fetch"
            )
        return feed

    def create_from_env(self, environ: Mapping[str, str] | None = None, *, default_provider: str = "pyth") -> DataFeed:
        """Makes the source that FEED_SOURCE (or the older FEED_PROVIDER) names, with the FEED_OPT_ options.

        `environ` None means the process's environment; a blank variable counts as unset. Raises as `create`.
        """
        environ = os.environ if environ is None else environ
        named = (environ.get(variable, "").strip() for variable in ("FEED_SOURCE", "FEED_PROVIDER"))
        provider = next(filter(None, named), default_provider)
        return self.create(provider, options_from_env(environ))


def create_default_registry() -> DataFeedRegistry:
    """The engine's own sources and those of the entry-point group `coordinator_node.feeds`.

    An entry point names a FeedFactory (a class that takes FeedSettings is one); it is imported when its source is
    made, so that a package nobody asked for cannot stop a worker.

    Raises:
        PermanentFeedError: a package's entry point has a name that is taken.
    """
    registry = DataFeedRegistry()
    registry.register("simulated", _simulated)
    registry.register("replay", _replay)
    registry.register("pyth", _pyth)
    registry.register("binance", _binance)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        _register_entry_point(registry, point)
    return registry


def _register_entry_point(registry: DataFeedRegistry, point: EntryPoint) -> None:
    try:
        registry.register(point.name, lambda settings: _load(point)(settings))
    except ValueError as error:
        package = point.dist.name if point.dist else "unknown"
        raise PermanentFeedError(
            f"the package {package} brings a feed named {point.name!r} ({point.value}), but {error}; "
            f"rename its entry point in {ENTRY_POINT_GROUP}, or remove the package"
        ) from error


def _load(point: EntryPoint) -> FeedFactory:
    try:
        factory: FeedFactory = point.load()
    except Exception as error:  # importing an operator's package may raise anything
        raise PermanentFeedError(f"the feed {point.name!r} ({point.value}) cannot be imported: {error!r}") from error
    return factory


# The sources' modules are imported when one is made: scipy and pyarrow take a second that other workers can save.


def _simulated(settings: FeedSettings) -> DataFeed:
    from coordinator_node.feeds.simulated import SimulatedFeed

    return SimulatedFeed.from_options(settings.options)


def _replay(settings: FeedSettings) -> DataFeed:
    from coordinator_node.feeds.replay import ReplayFeed

    return ReplayFeed.from_options(settings.options)


def _pyth(settings: FeedSettings) -> DataFeed:
    from coordinator_node.feeds.pyth import PythFeed

    return PythFeed.from_options(settings.options)


def _binance(settings: FeedSettings) -> DataFeed:
    from coordinator_node.feeds.binance import BinanceFeed

    return BinanceFeed.from_options(settings.options)
