"""Sources by name, from the environment, from installed packages, and those written for 0.1.84."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from feed_cases import NOON, Recorder, SettableClock, trades

import coordinator_node.feeds
from coordinator_node.feeds import (
    DataFeed,
    DataFeedRegistry,
    FeedDataRecord,
    FeedFetchRequest,
    FeedHandle,
    FeedSettings,
    FeedSink,
    FeedSubscription,
    SubjectDescriptor,
    create_default_registry,
    registry,
)
from coordinator_node.feeds.base import listening_ended, spacing_of
from coordinator_node.feeds.binance import BinanceFeed
from coordinator_node.feeds.errors import FeedError, PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.pyth import PythFeed
from coordinator_node.feeds.replay import ReplayFeed
from coordinator_node.feeds.simulated import SimulatedFeed
from coordinator_node.feeds.validation import to_feed_record


class OldHandle:
    """A handle as 0.1.84 had it: it can be stopped, and tells nothing else."""

    stopped = False

    async def stop(self) -> None:
        self.stopped = True


class OldFeed:
    """A source as 0.1.84 had it: three coroutines, no base class, whole seconds."""

    async def list_subjects(self) -> Sequence[SubjectDescriptor]:
        return [SubjectDescriptor("BTC", None, ("tick",), ("1s",), "old")]

    async def listen(self, sub: FeedSubscription, sink: FeedSink) -> FeedHandle:
        for subject in sub.subjects:
            await sink.on_record(FeedDataRecord("old", subject, sub.kind, sub.granularity, 1714564800, {"price": 1.5}))
        return OldHandle()

    async def fetch(self, req: FeedFetchRequest) -> Sequence[FeedDataRecord]:
        return [FeedDataRecord("old", "BTC", "tick", "1s", second, {"price": 1.5}) for second in (1, 2)]


class OldSubclass(OldFeed, DataFeed):
    """The same with the base class named."""


@pytest.mark.parametrize("feed_class", [OldFeed, OldSubclass])
def test_a_source_written_for_the_predecessor_works_unchanged(feed_class: type[OldFeed]) -> None:
    async def run() -> None:
        made = DataFeedRegistry()
        made.register("mine", lambda settings: feed_class())
        feed = made.create("mine")
        sink = Recorder(SettableClock())
        handle = await feed.listen(FeedSubscription(("BTC", "ETH"), "tick", "1s"), sink)
        stored = [to_feed_record(record, NOON) for record in sink.records]
        assert [(record.subject, record.kind, record.values) for record in stored] == [
            ("BTC", "tick", {"price": 1.5}),
            ("ETH", "tick", {"price": 1.5}),
        ]
        assert stored[0].ts_event == NOON.replace(microsecond=0)
        assert spacing_of(feed, "1m") == 60.0
        waiting = asyncio.create_task(listening_ended(handle))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()
        await handle.stop()

    asyncio.run(run())


def test_a_subclass_that_lacks_a_verb_cannot_be_made() -> None:
    class Deaf(DataFeed):
        async def list_subjects(self) -> Sequence[SubjectDescriptor]:
            return []

    with pytest.raises(TypeError, match="abstract"):
        Deaf()


def test_the_engines_own_sources(tmp_path: Path) -> None:
    made = create_default_registry()
    assert made.providers() == ["binance", "pyth", "replay", "simulated"]
    assert isinstance(made.create("simulated"), SimulatedFeed)
    assert isinstance(made.create(" Simulated ", {"SEED": "3"}), SimulatedFeed)
    path = trades(tmp_path / "BTC.csv")
    assert isinstance(made.create("replay", {"path": str(path)}), ReplayFeed)


def test_the_venues_are_made_without_asking_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTH_API_KEY", "secret")
    assert isinstance(create_default_registry().create("pyth", {"feed_id_DOGE": "0x" + "AB" * 32}), PythFeed)
    assert isinstance(create_default_registry().create("Binance", {"symbol_DOGE": "DOGEEUR"}), BinanceFeed)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(PermanentFeedError, match="no FEED_SOURCE=kraken; there is binance, pyth, replay, simulated"):
        create_default_registry().create("kraken")


def test_a_name_is_taken_once_unless_replaced() -> None:
    made = DataFeedRegistry()
    made.register("mine", lambda settings: OldFeed())
    with pytest.raises(ValueError, match="'mine' is registered already"):
        made.register("MINE", lambda settings: OldSubclass())
    made.register("mine", lambda settings: OldSubclass(), replace=True)
    assert isinstance(made.create("mine"), OldSubclass)
    with pytest.raises(ValueError, match="needs a name"):
        made.register(" ", lambda settings: OldFeed())


def test_a_factory_that_gives_no_source_is_refused() -> None:
    made = DataFeedRegistry()
    made.register("mine", lambda settings: object())
    with pytest.raises(PermanentFeedError, match="FEED_SOURCE=mine gave a object, which is no source"):
        made.create("mine")


def test_the_environment_names_the_source_and_its_options() -> None:
    seen: list[FeedSettings] = []

    def factory(settings: FeedSettings) -> DataFeed:
        seen.append(settings)
        return OldFeed()

    made = DataFeedRegistry()
    made.register("mine", factory)
    made.register("other", factory)
    options = {"FEED_OPT_feed_id_BTC": "e62d", "FEED_OPT_Mode": "x", "FEED_KIND": "tick"}
    made.create_from_env({"FEED_SOURCE": "mine", "FEED_PROVIDER": "other", **options})
    made.create_from_env({"FEED_SOURCE": " ", "FEED_PROVIDER": "other"})
    made.create_from_env({}, default_provider="mine")
    assert seen == [
        FeedSettings("mine", {"feed_id_BTC": "e62d", "Mode": "x"}),
        FeedSettings("other", {}),
        FeedSettings("mine", {}),
    ]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_SOURCE", "simulated")
    monkeypatch.setenv("FEED_OPT_seed", "9")
    assert isinstance(create_default_registry().create_from_env(), SimulatedFeed)
    monkeypatch.delenv("FEED_OPT_seed")
    monkeypatch.delenv("FEED_SOURCE")
    monkeypatch.delenv("FEED_PROVIDER", raising=False)
    assert isinstance(create_default_registry().create_from_env(), PythFeed)


def entry_point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="coordinator_node.feeds")


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def found(*, group: str) -> list[EntryPoint]:
        assert group == "coordinator_node.feeds"
        return list(points)

    monkeypatch.setattr(registry, "entry_points", found)


def make_old_feed(settings: FeedSettings) -> DataFeed:
    assert settings == FeedSettings("exchange", {"key": "1"})
    return OldFeed()


def test_packages_bring_sources_that_are_imported_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        entry_point("exchange", f"{__name__}:make_old_feed"),
        entry_point("broken", "no_such_module_here:factory"),
    )
    made = create_default_registry()
    assert {"exchange", "broken", "simulated"} <= set(made.providers())
    assert isinstance(made.create("exchange", {"key": "1"}), OldFeed)
    with pytest.raises(PermanentFeedError, match=r"'broken' \(no_such_module_here:factory\) cannot be imported"):
        made.create("broken")


def test_a_package_cannot_take_a_name_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry_point("binance", "elsewhere:factory"))
    with pytest.raises(PermanentFeedError, match=r"feed named 'binance' \(elsewhere:factory\).*rename its entry point"):
        create_default_registry()


def test_a_real_installed_distribution_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution = tmp_path / "operators_feed-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: operators-feed\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[coordinator_node.feeds]\nours = operators_feed:make\n")
    (tmp_path / "operators_feed.py").write_text(
        "from coordinator_node.feeds.simulated import SimulatedFeed\n\n"
        "def make(settings):\n    return SimulatedFeed(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(create_default_registry().create("ours"), SimulatedFeed)


def test_the_public_names_are_there() -> None:
    for name in coordinator_node.feeds.__all__:
        assert hasattr(coordinator_node.feeds, name)
    assert registry.FeedSettings is FeedSettings


def test_errors_say_whether_to_try_again() -> None:
    busy = RetryableFeedError("busy", retry_after=2.5)
    assert busy.retry_after == 2.5
    assert RetryableFeedError("busy").retry_after is None
    assert isinstance(busy, FeedError)
    assert not isinstance(PermanentFeedError("no"), RetryableFeedError)
    assert (PermanentFeedError("no").subject, PermanentFeedError("no", subject="BTC").subject) == (None, "BTC")
