"""A file as an endless tape on the wall clock, without state.

The file spans P, a whole number of granularities: from the beginning of the interval of its first record to the end of
the interval of its last (intervals of the granularity, in the file's time, counted from the Unix epoch). A record at
offset o from that beginning is on the wall clock at

    (n P + o) / speed    seconds from the Unix epoch, for every whole number n

(rounded down to the microsecond). So the tape plays over and over, every process sees the same tape, any past stretch
can be computed, and records that follow each other in the file are the granularity divided by the speed apart. Gaps
in the file stay gaps. Where the tape starts over, prices jump from the file's last to its first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator_node.entities.granularity import granularity_seconds
from coordinator_node.feeds.contracts import FeedDataKind
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.replay.tape_file import Series, TapeFile, candle_granularity, gaps


class Played(NamedTuple):
    """One record on the wall clock: its time there and in the file, in epoch microseconds, and its values."""

    wall_micros: int
    file_micros: int
    values: dict[str, float]


@dataclass(frozen=True)
class Track:
    """One subject's records on the tape: ascending offsets from its beginning in microseconds, and their values."""

    offsets: NDArray[np.int64]
    values: list[dict[str, float]]


@dataclass(frozen=True)
class Tape:
    """A file at one granularity; `start` (epoch) and `length` are in microseconds of the file's time.

    `tracks` has the file's subjects; None is the subject of a file that does not name it.
    """

    start: int
    length: int
    tracks: Mapping[str | None, Track]

    def play(self, subject: str | None, speed: Fraction, start: int, end: int) -> Iterator[Played]:
        """The subject's records with start <= wall time < end (epoch microseconds), ascending, each time once.

        Where the speed brings two ticks into one microsecond, the later stands.
        """
        pending: Played | None = None
        for played in self._every(self.tracks[subject], speed, start, end):
            if pending is not None and pending.wall_micros != played.wall_micros:
                yield pending
            pending = played
        if pending is not None:
            yield pending

    def _every(self, track: Track, speed: Fraction, start: int, end: int) -> Iterator[Played]:
        # Python's integers, because positions on a fast tape since 1970 exceed 64 bits.
        # floor(x / speed) >= start exactly where x >= ceil(start * speed), for every whole number x.
        first, stop = -(-start * speed // 1), -(-end * speed // 1)
        for turn in range(int(first // self.length), int(-(-stop // self.length))):
            begins = turn * self.length
            low, high = np.searchsorted(track.offsets, [max(first - begins, 0), min(stop - begins, self.length)])
            for index in range(low, high):
                offset = int(track.offsets[index])
                yield Played(int((begins + offset) // speed), self.start + offset, track.values[index])


def make_tape(file: TapeFile, granularity: str) -> Tape:
    """The file as a tape: of its candles, or of one tick for each interval of the granularity that has a trade.

    A tick is the interval's last trade, at that trade's own time; its volume is the interval's.

    Raises:
        PermanentFeedError: candles of another granularity, or gaps between them that are no multiple of it.
    """
    size = granularity_seconds(granularity) * 1_000_000
    if file.kind == FeedDataKind.CANDLE:
        _check_grid(file, granularity)
    start = min(int(series.times[0]) for series in file.series.values()) // size * size
    last = max(int(series.times[-1]) for series in file.series.values()) // size * size
    make_track = _candle_track if file.kind == FeedDataKind.CANDLE else _tick_track
    return Tape(
        start,
        last + size - start,
        {subject: make_track(series, start, size) for subject, series in file.series.items()},
    )


def _check_grid(file: TapeFile, granularity: str) -> None:
    spaced = [gap for series in file.series.values() for gap in gaps(series)]
    if not spaced:
        return
    actual = candle_granularity(file)
    if actual != granularity:
        raise PermanentFeedError(
            f"{file.path} holds {actual} candles (row {min(spaced).row} is {min(spaced).seconds:g} s after the one "
            f"before): set FEED_GRANULARITY={actual}, not {granularity}"
        )
    for gap in spaced:
        if gap.seconds % granularity_seconds(granularity):
            raise PermanentFeedError(
                f"{file.path}, row {gap.row}: {gap.seconds:g} s after the row before, which is no whole number of "
                f"{granularity} candles; correct or remove the row"
            )


def _candle_track(series: Series, start: int, size: int) -> Track:
    names = list(series.columns)
    rows = zip(*(column.tolist() for column in series.columns.values()), strict=True)
    return Track(series.times - start, [dict(zip(names, row, strict=True)) for row in rows])


def _tick_track(series: Series, start: int, size: int) -> Track:
    offsets = series.times - start
    intervals = offsets // size
    firsts = np.flatnonzero(np.diff(intervals, prepend=-1))
    lasts = np.append(firsts[1:], len(intervals)) - 1
    prices = series.columns["price"][lasts].tolist()
    volumes = np.add.reduceat(series.columns["amount"], firsts).tolist()
    values = [{"price": price, "volume": volume} for price, volume in zip(prices, volumes, strict=True)]
    return Track(offsets[lasts], values)
