"""The simulated source: what its prices are like, and that their granularities agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from feed_cases import NOON
from scipy.stats import kurtosis, spearmanr

from coordinator_node.entities.granularity import GRANULARITY_SECONDS
from coordinator_node.feeds import FeedDataRecord
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.simulated import SimulatedFeed
from coordinator_node.feeds.simulated.price_path import BLOCK_SECONDS, ar1, candles, market_of, second_candles

WEEK_START = 1_714_521_600  # 2024-05-01T00:00:00Z
WEEK = 7 * 86_400
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def week_of_log_prices() -> np.ndarray:
    return np.log(candles(7, "BTC", 1, WEEK_START, WEEK_START + WEEK).close)


def aggregate(parts: list[FeedDataRecord]) -> dict[str, float]:
    return {
        "open": parts[0].values["open"],
        "high": max(part.values["high"] for part in parts),
        "low": min(part.values["low"] for part in parts),
        "close": parts[-1].values["close"],
        "volume": sum(part.values["volume"] for part in parts),
    }


@pytest.mark.parametrize("subject", ["BTC", "DOGE/EUR", "日本"])
def test_a_minute_equals_its_sixty_seconds(subject: str) -> None:
    feed = SimulatedFeed()
    start = NOON.replace(microsecond=0) - timedelta(minutes=10)
    seconds = feed.history(subject, "candle", "1s", start, start + timedelta(minutes=20))
    for position, minute in enumerate(feed.history(subject, "candle", "1m", start, start + timedelta(minutes=20))):
        assert minute.values == aggregate(seconds[60 * position : 60 * position + 60])


def test_every_longer_candle_equals_the_next_shorter_ones_inside_it() -> None:
    feed = SimulatedFeed()
    start = datetime(2024, 5, 1, tzinfo=UTC)
    names = list(GRANULARITY_SECONDS)[1:]
    for shorter, longer in pairwise(names):
        size = GRANULARITY_SECONDS[longer] // GRANULARITY_SECONDS[shorter]
        parts = feed.history("ETH", "candle", shorter, start, start + DAY)
        wholes = feed.history("ETH", "candle", longer, start, start + DAY)
        assert len(parts) == size * len(wholes)
        assert [whole.values for whole in wholes] == [
            aggregate(parts[size * at : size * at + size]) for at in range(len(wholes))
        ]


@pytest.mark.parametrize("granularity", list(GRANULARITY_SECONDS))
def test_a_tick_is_what_the_candle_that_ends_there_ended_with(granularity: str) -> None:
    feed = SimulatedFeed()
    spacing = timedelta(seconds=GRANULARITY_SECONDS[granularity])
    start = datetime(2024, 5, 1, tzinfo=UTC)
    ticks = feed.history("SOL", "tick", granularity, start, start + 3 * spacing)
    bars = feed.history("SOL", "candle", granularity, start - spacing, start + 2 * spacing)
    assert [tick.ts_event for tick in ticks] == [start, start + spacing, start + 2 * spacing]
    assert [tick.values for tick in ticks] == [
        {"price": bar.values["close"], "volume": bar.values["volume"]} for bar in bars
    ]


@pytest.mark.parametrize("block", [-1, 0, 119_063])
def test_seconds_hang_together_within_and_across_blocks(block: int) -> None:
    start = block * BLOCK_SECONDS
    bars = candles(7, "BTC", 1, start - 600, start + 600)
    assert np.array_equal(bars.open[1:], bars.close[:-1])
    assert np.all(bars.low <= np.minimum(bars.open, bars.close))
    assert np.all(bars.high >= np.maximum(bars.open, bars.close))
    assert np.all(bars.low > 0)
    assert np.all(bars.volume > 0)


def test_a_block_alone_equals_the_block_within_a_stretch() -> None:
    block = 119_063
    second_candles.cache_clear()
    stretch = candles(7, "BTC", 1, (block - 2) * BLOCK_SECONDS, (block + 1) * BLOCK_SECONDS)
    second_candles.cache_clear()
    alone = second_candles(7, "BTC", block)
    assert np.array_equal(alone.close, stretch.close[-BLOCK_SECONDS:])
    assert np.array_equal(alone.volume, stretch.volume[-BLOCK_SECONDS:])


@pytest.mark.parametrize(("stream", "half_life"), [("volatility", 1200.0), ("drift", 40.0)])
def test_volatility_and_drift_go_on_smoothly_where_blocks_meet(stream: str, half_life: float) -> None:
    states = [ar1(7, "BTC", stream, block, half_life) for block in range(119_000, 119_020)]
    within = np.abs(np.diff(states[0])).max()
    across = [abs(later[0] - earlier[-1]) for earlier, later in pairwise(states)]
    assert max(across) < 2 * within
    assert np.std([state[0] for state in states]) > 0.5


def test_another_seed_or_subject_gives_other_prices() -> None:
    start = NOON.replace(microsecond=0)

    def closes(seed: int, subject: str) -> list[float]:
        found = SimulatedFeed(seed).history(subject, "tick", "1s", start, start + timedelta(seconds=5))
        return [record.values["price"] for record in found]

    assert closes(7, "BTC") == closes(7, "BTC")
    assert closes(7, "BTC") != closes(8, "BTC")
    assert closes(7, "AAA") != closes(7, "BBB")


def test_levels_are_sensible_and_stay_so_for_years() -> None:
    for subject, low, high in (("BTC", 20_000, 180_000), ("ETH", 1_000, 9_000), ("SOL", 50, 450)):
        monthly = [second_candles(7, subject, block).close[0] for block in range(100_000, 130_000, 1000)]
        assert low < min(monthly)
        assert max(monthly) < high
        assert np.std(np.log(monthly)) > 0.02
    for number in range(50):
        assert 0.5 <= market_of(f"COIN{number}").level < 500


def test_momentum_has_skill(week_of_log_prices: np.ndarray) -> None:
    for back in (15, 20, 30):
        for ahead in (10, 15, 30):
            momentum = week_of_log_prices[back:-ahead] - week_of_log_prices[: -ahead - back]
            following = week_of_log_prices[back + ahead :] - week_of_log_prices[back:-ahead]
            assert 0.15 < spearmanr(momentum[::7], following[::7]).statistic < 0.35


def test_returns_have_heavy_tails_jumps_and_clustered_volatility(week_of_log_prices: np.ndarray) -> None:
    returns = np.diff(week_of_log_prices)
    assert kurtosis(returns) > 5
    jumps = np.abs(returns) > 20 * np.median(np.abs(returns))
    assert 20 < jumps.sum() < 250
    size = np.abs(returns[~jumps])
    assert np.corrcoef(size[:-60], size[60:])[0, 1] > 0.1
    assert np.corrcoef(size[: -6 * 3600], size[6 * 3600 :])[0, 1] < 0.05
    daily_deviation = returns.std() * np.sqrt(86_400)
    assert 0.005 < daily_deviation < 0.05


def test_subjects_are_slightly_correlated(week_of_log_prices: np.ndarray) -> None:
    other = np.log(candles(7, "ETH", 1, WEEK_START, WEEK_START + WEEK).close)
    correlation = spearmanr(np.diff(week_of_log_prices), np.diff(other)).statistic
    assert 0.1 < correlation < 0.5


def test_options() -> None:
    start = NOON.replace(microsecond=0)

    def first(feed: SimulatedFeed) -> object:
        return feed.history("BTC", "tick", "1s", start, start + timedelta(seconds=1))[0].values

    assert first(SimulatedFeed.from_options({})) == first(SimulatedFeed(7))
    assert first(SimulatedFeed.from_options({"SEED": "11"})) == first(SimulatedFeed(11))
    with pytest.raises(PermanentFeedError, match="FEED_OPT_seed is 'x': set it to a whole number"):
        SimulatedFeed.from_options({"seed": "x"})
    with pytest.raises(PermanentFeedError, match="no option FEED_OPT_speed; it has FEED_OPT_seed"):
        SimulatedFeed.from_options({"speed": "1"})


@pytest.mark.parametrize("kind", ["depth", "funding"])
def test_depth_and_funding_are_refused(kind: str) -> None:
    with pytest.raises(PermanentFeedError, match=f"no {kind} records: set FEED_KIND=tick or FEED_KIND=candle"):
        SimulatedFeed().check(("BTC",), kind, "1s")
