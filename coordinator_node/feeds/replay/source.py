"""The replay source: a file of real candles or trades, played over and over on the wall clock.

`tape_file` says what the file must look like, `tape` where on the wall clock each record is; the spacing of records
is the stated granularity divided by the speed. Nothing is remembered: a restart goes on with the same tape.

- `candle` needs a file of candles of the stated granularity. `ts_event` is the open time on the wall clock; the
  candle is known one spacing later.
- `tick` needs a file of trades: the last trade of each interval of the granularity (in the file's time) that has
  one, at its own time, with the interval's volume.

Each record's metadata holds its time in the file (`file_time`, ISO 8601).

Options: `FEED_OPT_path`; `FEED_OPT_speed`, how many seconds of the file pass in one (1 by default; 60 plays 1m candles
one a second).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Self

from coordinator_node.entities.granularity import GRANULARITY_SECONDS, granularity_seconds
from coordinator_node.entities.times import utc_now
from coordinator_node.feeds.computed import ComputedFeed
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord, SubjectDescriptor
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.micros import epoch_micros, from_epoch_micros
from coordinator_node.feeds.options import read_options
from coordinator_node.feeds.replay.tape import Tape, make_tape
from coordinator_node.feeds.replay.tape_file import TapeFile, candle_granularity, describe, read_tape_file

SMALLEST_SPACING = 0.001
"""Seconds; a faster tape is a mistake in its speed: no store could keep up, and event times would run together."""

SLOWEST, FASTEST = Decimal("1e-6"), Decimal("1e9")
"""Bounds of the speed that keep every time computed from it within what a datetime can hold."""


class ReplayFeed(ComputedFeed):
    """Plays one file; see the module for how. Reading it may raise PermanentFeedError, which names file and row."""

    source = "replay"

    def __init__(
        self, path: str | Path, speed: Fraction = Fraction(1), *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        super().__init__(clock)
        self._file: TapeFile = read_tape_file(path)
        self._speed = speed
        self._tapes: dict[str, Tape] = {}

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """Made from the FEED_OPT_ options; raises PermanentFeedError for one that is unknown, missing or wrong."""
        given = read_options(cls.source, options, {"path", "speed"})
        if "path" not in given:
            raise PermanentFeedError("FEED_SOURCE=replay needs FEED_OPT_path=<a Parquet or CSV file>")
        return cls(given["path"], parse_speed(given.get("speed", "1")))

    def spacing_seconds(self, granularity: str) -> float:
        """The granularity's seconds divided by the speed."""
        return float(granularity_seconds(granularity) / self._speed)

    async def list_subjects(self) -> Sequence[SubjectDescriptor]:
        """The file's subjects; of a file without that column the guess from its name, though it answers to any."""
        description = describe(self._file)
        return [
            SubjectDescriptor(
                symbol=subject,
                display_name=None,
                kinds=(description.kind,),
                granularities=self._granularities(),
                source=self.source,
                metadata={"file": self._file.path.name},
            )
            for subject in description.subjects
        ]

    def check(self, subjects: Sequence[str], kind: str, granularity: str) -> None:
        """The file's own kind and granularity, and subjects that it holds."""
        held = "candles" if self._file.kind == FeedDataKind.CANDLE else "trades"
        if kind != self._file.kind:
            raise PermanentFeedError(
                f"{self._file.path} holds {held}, not what {kind} records are made of: set FEED_KIND={self._file.kind}"
            )
        self._check_subjects(subjects)
        if self.spacing_seconds(granularity) < SMALLEST_SPACING:
            raise PermanentFeedError(
                f"FEED_OPT_speed={float(self._speed):g} puts {granularity} records less than a millisecond apart: "
                f"set it to at most {granularity_seconds(granularity) / SMALLEST_SPACING:g}"
            )
        self._tape(granularity)

    def history(
        self, subject: str, kind: str, granularity: str, start: datetime, end: datetime
    ) -> list[FeedDataRecord]:
        """The tape's records in [start, end)."""
        tape = self._tape(granularity)
        track = subject if subject in tape.tracks else None
        return [
            FeedDataRecord(
                source=self.source,
                subject=subject,
                kind=FeedDataKind(kind),
                granularity=granularity,
                ts_event=from_epoch_micros(played.wall_micros),
                values=dict(played.values),
                metadata={"file_time": from_epoch_micros(played.file_micros).isoformat()},
            )
            for played in tape.play(track, self._speed, epoch_micros(start), epoch_micros(end))
        ]

    def _tape(self, granularity: str) -> Tape:
        if granularity not in self._tapes:
            self._tapes[granularity] = make_tape(self._file, granularity)
        return self._tapes[granularity]

    def _check_subjects(self, subjects: Sequence[str]) -> None:
        if None in self._file.series:
            if len(set(subjects)) > 1:
                raise PermanentFeedError(
                    f"{self._file.path} has no subject column, so it holds one subject, but FEED_SUBJECTS names "
                    f"{', '.join(subjects)}: name one, or add the column"
                )
            return
        missing = [subject for subject in subjects if subject not in self._file.series]
        if missing:
            there = ", ".join(sorted(str(subject) for subject in self._file.series))
            raise PermanentFeedError(
                f"{self._file.path} does not hold {', '.join(missing)}: set FEED_SUBJECTS to some of {there}"
            )

    def _granularities(self) -> tuple[str, ...]:
        if self._file.kind == FeedDataKind.TICK:
            return tuple(GRANULARITY_SECONDS)
        return (candle_granularity(self._file),)


def parse_speed(text: str) -> Fraction:
    """FEED_OPT_speed as an exact number, so that positions on the tape do not drift.

    Raises:
        PermanentFeedError: it is no number, not above 0, or beyond all sense.
    """
    try:
        speed = Decimal(text)
    except InvalidOperation:
        speed = Decimal("NaN")
    if speed.is_nan() or not SLOWEST <= speed <= FASTEST:
        raise PermanentFeedError(f"FEED_OPT_speed is {text!r}: set it to a number above 0, such as 60 or 0.5")
    return Fraction(speed)
