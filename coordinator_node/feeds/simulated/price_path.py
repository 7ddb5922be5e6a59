"""Simulated prices: a path of one-second candles that is a pure function of (seed, subject, time).

The path is made in blocks of four hours, each from its own random streams, so that any moment can be computed alone:

    r_t = sigma_t (0.2 z_t + e_t) + J_t

- sigma_t = sigma exp(v_t - 0.25): log-volatility v_t is an AR(1) (half-life 20 min, standard deviation 0.5; then
  E[sigma_t^2] = sigma^2), which makes volatility cluster (Taylor, Modelling Financial Time Series, 1986).
- e_t: Student-t shocks with 5 degrees of freedom, scaled to unit variance; 30 % of the variance is common to all
  subjects of a seed.
- z_t: a drift that changes slowly (AR(1), half-life 40 s, unit variance); it is what a momentum model can see.
- J_t: jumps that arrive as a Poisson process, about one in two hours, 40 sigma in standard deviation.

Where blocks meet, the levels come from a random walk over blocks that is drawn back to the subject's start level over
months, and each block's path is bent linearly to its two ends. The bend is small: about a thirtieth of sigma a second.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

type Floats = NDArray[np.float64]

BLOCK_SECONDS = 4 * 3600
CACHED_BLOCKS = 64  # of 0.6 MB each: ten subjects through a day

VOLATILITY_HALF_LIFE, VOLATILITY_SD = 1200.0, 0.5
DRIFT_HALF_LIFE, DRIFT_SHARE = 40.0, 0.2
SHOCK_DEGREES = 5.0
COMMON_SHARE = 0.3
JUMPS_PER_SECOND, JUMP_SIGMAS = 1 / 7200, 40.0

LEVEL_SD, LEVEL_HALF_LIFE_BLOCKS, LEVEL_MEMORY_BLOCKS = 0.01, 360.0, 2048

VOLUME_UNIT = 1 / 1024
"""Volumes are multiples of a power of two, so that their sums are exact in any order."""


@dataclass(frozen=True)
class Market:
    """One subject's character: price level, volatility of one second, value traded in one second, price decimals."""

    level: float
    sigma: float
    turnover: float
    decimals: int


@dataclass(frozen=True)
class Candles:
    """Consecutive candles as columns of equal length."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __getitem__(self, part: slice) -> Candles:
        return Candles(*(getattr(self, column.name)[part] for column in fields(self)))

    def merged(self, size: int) -> Candles:
        """Each `size` consecutive candles as one."""
        high, low, volume = (column.reshape(-1, size) for column in (self.high, self.low, self.volume))
        return Candles(
            open=self.open[::size],
            high=high.max(axis=1),
            low=low.min(axis=1),
            close=self.close[size - 1 :: size],
            volume=volume.sum(axis=1),
        )

    @staticmethod
    def joined(parts: list[Candles]) -> Candles:
        """The candles of all parts, one after the other."""
        return Candles(*(np.concatenate([getattr(p, column.name) for p in parts]) for column in fields(Candles)))


def market_of(subject: str) -> Market:
    """BTC, ETH and SOL near their prices of the mid-2020s; any other name at a level of its own from 0.5 to 500."""
    known = {"BTC": (60_000.0, 4e-5, 60_000.0), "ETH": (3_000.0, 5e-5, 30_000.0), "SOL": (150.0, 6e-5, 10_000.0)}
    if subject in known:
        level, sigma, turnover = known[subject]
    else:
        digest = int.from_bytes(hashlib.blake2b(subject.encode(), digest_size=8).digest())
        level, sigma, turnover = 0.5 * 1000.0 ** (digest / 2**64), 5e-5, 5_000.0
    return Market(level, sigma, turnover, decimals=6 - math.floor(math.log10(level)))


def candles(seed: int, subject: str, size: int, start: int, end: int) -> Candles:
    """The candles of `size` seconds that open in [start, end); both are epoch seconds, whole multiples of `size`.

    `size` divides a day and either divides the block of four hours or is a multiple of it.
    """
    if start >= end:
        return second_candles(seed, subject, 0)[0:0]
    step = min(size, BLOCK_SECONDS)
    parts = []
    for block in range(start // BLOCK_SECONDS, -(-end // BLOCK_SECONDS)):
        block_start = block * BLOCK_SECONDS
        inside = slice(max(start - block_start, 0), min(end - block_start, BLOCK_SECONDS))
        parts.append(second_candles(seed, subject, block)[inside].merged(step))
    return Candles.joined(parts).merged(size // step)


@lru_cache(maxsize=CACHED_BLOCKS)
def second_candles(seed: int, subject: str, block: int) -> Candles:
    """The one-second candles of one block; candle k covers [k, k + 1) seconds from its start.

    Prices are rounded to the subject's decimals; a candle opens at the close before it.
    """
    market = market_of(subject)
    shape = _returns(seed, subject, block, market)
    wiggle = _stream(seed, subject, "wiggle", block)
    path = np.concatenate(([0.0], np.cumsum(shape.returns)))
    start, end = _level(seed, subject, block), _level(seed, subject, block + 1)
    log_price = start + path + np.linspace(0.0, end - start - path[-1], BLOCK_SECONDS + 1)
    before, after = log_price[:-1], log_price[1:]
    reach = 0.3 * shape.sigma * np.abs(wiggle.standard_normal((2, BLOCK_SECONDS)))

    def price(log_values: Floats) -> Floats:
        return np.round(market.level * np.exp(log_values), market.decimals)

    return Candles(
        open=price(before),
        high=price(np.maximum(before, after) + reach[0]),
        low=price(np.minimum(before, after) - reach[1]),
        close=price(after),
        volume=_volumes(seed, subject, block, np.abs(shape.returns) / market.sigma),
    )


@dataclass(frozen=True)
class _Shape:
    returns: Floats
    sigma: Floats


def _returns(seed: int, subject: str, block: int, market: Market) -> _Shape:
    """The block's log returns, second by second, before they are bent to its ends, and their volatility."""
    log_volatility = VOLATILITY_SD * ar1(seed, subject, "volatility", block, VOLATILITY_HALF_LIFE)
    sigma = market.sigma * np.exp(log_volatility - VOLATILITY_SD**2)
    drift = ar1(seed, subject, "drift", block, DRIFT_HALF_LIFE)
    own, common = _shocks(seed, subject, "own shock", block), _shocks(seed, "", "common shock", block)
    shocks = math.sqrt(1 - COMMON_SHARE) * own + math.sqrt(COMMON_SHARE) * common
    jumps = _stream(seed, subject, "jump", block)
    arrivals = jumps.poisson(JUMPS_PER_SECOND, BLOCK_SECONDS)
    jump_sizes = JUMP_SIGMAS * market.sigma * np.sqrt(arrivals) * jumps.standard_normal(BLOCK_SECONDS)
    return _Shape(sigma * (DRIFT_SHARE * drift + shocks) + jump_sizes, sigma)


def _volumes(seed: int, subject: str, block: int, size_of_move: Floats) -> Floats:
    """Lognormal, larger in seconds of large moves, at least one unit."""
    market = market_of(subject)
    noise = np.exp(0.8 * _stream(seed, subject, "volume", block).standard_normal(BLOCK_SECONDS))
    units = market.turnover / market.level * noise * (0.5 + 0.5 * size_of_move) / VOLUME_UNIT
    return np.maximum(np.round(units), 1.0) * VOLUME_UNIT


def _shocks(seed: int, subject: str, stream: str, block: int) -> Floats:
    draws = _stream(seed, subject, stream, block).standard_t(SHOCK_DEGREES, BLOCK_SECONDS)
    return draws * math.sqrt((SHOCK_DEGREES - 2) / SHOCK_DEGREES)


def ar1(seed: int, subject: str, stream: str, block: int, half_life: float) -> Floats:
    """A stationary AR(1) of unit variance.

    It runs through the block before as well, by whose end it has forgotten its beginning: so it goes on smoothly from
    block to block although each is computed alone.
    """
    phi = 0.5 ** (1 / half_life)
    noise = [_stream(seed, subject, stream, each).standard_normal(BLOCK_SECONDS) for each in (block - 1, block)]
    state = np.asarray(lfilter([math.sqrt(1 - phi**2)], [1.0, -phi], np.concatenate(noise)), dtype=np.float64)
    return state[BLOCK_SECONDS:]


def _level(seed: int, subject: str, block: int) -> float:
    """The log price over the subject's level at a block's start: an AR(1) over blocks, its last 2048 steps."""
    phi = 0.5 ** (1 / LEVEL_HALF_LIFE_BLOCKS)
    group, position = divmod(block, LEVEL_MEMORY_BLOCKS)
    steps = [_stream(seed, subject, "level", each).standard_normal(LEVEL_MEMORY_BLOCKS) for each in (group - 1, group)]
    newest_last = np.concatenate(steps)[position + 1 : position + 1 + LEVEL_MEMORY_BLOCKS]
    weights = phi ** np.arange(LEVEL_MEMORY_BLOCKS - 1, -1, -1)
    return LEVEL_SD * float(weights @ newest_last)


def _stream(seed: int, subject: str, stream: str, index: int) -> np.random.Generator:
    """The random numbers of one purpose, subject and block (or group of blocks)."""
    key = hashlib.blake2b(repr((seed, subject, stream, index)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key)))
