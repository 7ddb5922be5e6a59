"""The replay source: which files it takes, and where their records are on the wall clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from feed_cases import (
    NOON,
    TAPE_START,
    Recorder,
    SettableClock,
    candle_columns,
    trades,
    two_subject_candles,
    write_table,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator_node.entities.times import utc_now
from coordinator_node.feeds import FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.errors import PermanentFeedError
from coordinator_node.feeds.micros import epoch_micros, from_epoch_micros
from coordinator_node.feeds.replay import ReplayFeed, describe_file, parse_speed

REAL_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def real_file(name: str) -> Path:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here: the real exchange records are no part of the project")
    return path


def naive_wall_times(
    offsets: list[int], length: int, speed: Fraction, start: datetime, end: datetime
) -> list[tuple[int, int]]:
    """(wall microseconds, offset) by the documented formula, turn after turn from well before `start`."""
    low, high = epoch_micros(start), epoch_micros(end)
    found = []
    for turn in range(int(low * speed / length) - 2, int(high * speed / length) + 3):
        for offset in offsets:
            wall = int((Fraction(turn * length) + offset) / speed // 1)
            if low <= wall < high:
                found.append((wall, offset))
    return sorted(found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    minutes=st.lists(st.integers(0, 30), min_size=1, max_size=10, unique=True).map(sorted),
    speed=st.one_of(
        st.sampled_from([Fraction(1), Fraction(60), Fraction(7), Fraction(1, 3), Fraction("0.123457")]),
        st.fractions(min_value=Fraction(1, 10), max_value=1000, max_denominator=997),
    ),
    begin=st.integers(0, 3_600_000_000),
    stretch=st.integers(0, 600_000_000),
)
def test_candles_are_where_the_formula_says(
    tmp_path: Path, minutes: list[int], speed: Fraction, begin: int, stretch: int
) -> None:
    minutes = sorted({0, 1, *minutes})  # two neighbours, so that the file's granularity shows
    path = write_table(tmp_path / "BTC.parquet", candle_columns(minutes, TAPE_START))
    start = NOON + timedelta(microseconds=begin)
    end = start + timedelta(microseconds=stretch)
    feed = ReplayFeed(path, speed)
    found = feed.history("BTC", "candle", "1m", start, end)
    expected = naive_wall_times(
        [minute * 60_000_000 for minute in minutes], (minutes[-1] + 1) * 60_000_000, speed, start, end
    )
    assert [epoch_micros(record.ts_event) for record in found] == [wall for wall, _ in expected]
    assert [record.values["open"] for record in found] == [100.0 + offset // 60_000_000 for _, offset in expected]
    file_times = [(TAPE_START + timedelta(microseconds=offset)).isoformat() for _, offset in expected]
    assert [record.metadata["file_time"] for record in found] == file_times
    for at, record in enumerate(found[:3]):
        just_after = record.ts_event + timedelta(microseconds=1)
        assert feed.history("BTC", "candle", "1m", record.ts_event, just_after) == [record]
        assert feed.history("BTC", "candle", "1m", just_after, end) == found[at + 1 :]


def test_ticks_are_the_last_trade_of_each_interval_at_its_own_time(tmp_path: Path) -> None:
    path = trades(tmp_path / "BTC.parquet")
    # The tape is 11 s long: the last trade is in the second that begins at 10 s.
    turn = from_epoch_micros(epoch_micros(NOON) // 11_000_000 * 11_000_000)
    found = ReplayFeed(path).history("BTC", "tick", "1s", turn, turn + timedelta(seconds=11))
    seen = [(round((record.ts_event - turn).total_seconds(), 6), record.values) for record in found]
    assert seen == [
        (0.9, {"price": 101.0, "volume": 3.0}),
        (1.2, {"price": 103.0, "volume": 7.0}),
        (3.999999, {"price": 105.0, "volume": 11.0}),
        (7.5, {"price": 106.0, "volume": 7.0}),
        (10.3, {"price": 107.0, "volume": 8.0}),
    ]
    assert found[0].metadata == {"file_time": "2019-10-11T00:00:00.900000+00:00"}


def test_a_coarser_granularity_samples_fewer_ticks(tmp_path: Path) -> None:
    path = trades(tmp_path / "BTC.parquet")
    feed = ReplayFeed(path)
    found = feed.history("BTC", "tick", "1m", NOON, NOON + timedelta(minutes=3))
    assert [record.values for record in found] == [{"price": 107.0, "volume": 36.0}] * 3


def test_the_tape_starts_over_after_its_last_record_and_one_spacing(tmp_path: Path) -> None:
    path = write_table(tmp_path / "BTC.csv", candle_columns([0, 1, 2], TAPE_START))
    found = ReplayFeed(path, Fraction(60)).history("BTC", "candle", "1m", NOON, NOON + timedelta(seconds=7))
    times = [record.ts_event for record in found]
    assert [(later - times[0]).total_seconds() for later in times] == [0, 1, 2, 3, 4, 5, 6]
    opens = [record.values["open"] for record in found]
    assert opens[:3] == opens[3:6]
    assert set(opens) == {100.0, 101.0, 102.0}


def test_the_spacing_is_the_granularity_over_the_speed(tmp_path: Path) -> None:
    path = write_table(tmp_path / "BTC.parquet", candle_columns([0, 1], TAPE_START))
    feed = ReplayFeed.from_options({"path": str(path), "speed": "60"})
    assert feed.spacing_seconds("1m") == 1.0
    assert ReplayFeed(path).spacing_seconds("1m") == 60.0


def test_csv_and_parquet_and_every_spelling_of_time_replay_alike(tmp_path: Path) -> None:
    columns = candle_columns([0, 1, 2], TAPE_START)
    times = columns["ts_event"]
    spellings: dict[str, list[object]] = {
        "aware.parquet": times,
        "aware.csv": times,
        "naive.parquet": [moment.replace(tzinfo=None) for moment in times],
        "naive.csv": [moment.replace(tzinfo=None).isoformat(" ") for moment in times],
        "text.parquet": [moment.isoformat() for moment in times],
        "text.csv": [moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ") for moment in times],
        "epoch.parquet": [int(moment.timestamp()) for moment in times],
        "epoch.csv": [moment.timestamp() for moment in times],
    }
    expected = None
    for name, spelt in spellings.items():
        feed = ReplayFeed(write_table(tmp_path / name, columns | {"ts_event": spelt}), Fraction(60))
        found = feed.history("BTC", "candle", "1m", NOON, NOON + timedelta(seconds=9))
        expected = expected or found
        assert found == expected, name


def test_subjects_share_one_tape(tmp_path: Path) -> None:
    feed = ReplayFeed(two_subject_candles(tmp_path / "two.parquet"), Fraction(60))
    turn = from_epoch_micros(epoch_micros(NOON) // 10_000_000 * 10_000_000)
    second = {
        subject: [
            int((record.ts_event - turn).total_seconds())
            for record in feed.history(subject, "candle", "1m", turn, turn + timedelta(seconds=10))
        ]
        for subject in ("XRP", "ADA")
    }
    assert second == {"XRP": [0, 1, 2, 4, 5, 9], "ADA": [0, 1, 3, 4]}


def test_two_ticks_that_a_fast_tape_brings_into_one_microsecond_become_the_later(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "ts_event": [TAPE_START + timedelta(microseconds=each) for each in (999_999, 1_000_000, 5_500_000)],
        "price": [1.0, 2.0, 3.0],
        "amount": [1.0, 1.0, 1.0],
    }
    feed = ReplayFeed(write_table(tmp_path / "BTC.parquet", columns), Fraction(900))
    found = feed.history("BTC", "tick", "1s", NOON, NOON + timedelta(milliseconds=50))
    times = [record.ts_event for record in found]
    assert times == sorted(set(times))
    assert {record.values["price"] for record in found} == {2.0, 3.0}


@pytest.mark.parametrize("kind", ["candle", "tick"])
def test_listening_on_the_real_clock_equals_fetching(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        if kind == "candle":
            feed = ReplayFeed(two_subject_candles(tmp_path / "two.csv"), Fraction(6000))
            what = (("ADA", "XRP"), "candle", "1m")
        else:
            feed = ReplayFeed(trades(tmp_path / "BTC.csv"), Fraction(100))
            what = (("BTC",), "tick", "1s")
        sink = Recorder(utc_now)
        began = utc_now()
        handle = await feed.listen(FeedSubscription(*what), sink)
        await sink.holds(20)
        await handle.stop()
        fetched = list(await feed.fetch(FeedFetchRequest(*what, start_ts=began - timedelta(seconds=1))))
        at = fetched.index(sink.records[0])
        assert sink.records == fetched[at : at + len(sink.records)]

    asyncio.run(run())


def change(**columns: list[object]) -> Callable[[dict[str, list[object]]], dict[str, list[object]]]:
    return lambda good: good | columns


def minutes(*offsets: float) -> list[object]:
    return [TAPE_START + timedelta(minutes=offset) for offset in offsets]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(ts_event=minutes(0, 2, 1)), r"row 3: ts_event is earlier than row 2's; sort the file"),
        (change(ts_event=minutes(0, 1, 1)), r"row 3: ts_event is the same as row 2's; keep one candle"),
        (change(ts_event=minutes(0, 1, 2.5)), r"row 3: 90 s after the row before.*1m candles; correct or remove"),
        (change(ts_event=minutes(0, 5, 10)), r"holds 5m candles.*set FEED_GRANULARITY=5m, not 1m"),
        (change(ts_event=minutes(0, 0.5, 1)), r"row 2: 30 s after the row before, which is no granularity"),
        (change(close=[1.0, float("nan"), 1.0]), r"row 2: close is not a finite number"),
        (change(volume=[1.0, 1.0, float("inf")]), r"row 3: volume is not a finite number"),
        (change(open=["1", "x", "2"]), r"row 2: open is 'x', expected a number"),
        (change(ts_event=["2019-10-11", "soon", "2019-10-12"]), r"row 2: ts_event 'soon' is not a time"),
        (change(ts_event=[1570752000000, 1570752060000, 1570752120000]), r"row 1: ts_event is thousands of years off"),
        (change(subject=["A", " ", "A"]), r"row 2: the subject is empty"),
        (
            lambda good: {"ts_event": good["ts_event"]},
            r"neither candles \(it lacks open, .*nor trades \(it lacks price",
        ),
        (lambda good: {name: [] for name in good}, r"has no rows"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_bad_file_is_refused_by_name_and_row(
    tmp_path: Path, suffix: str, spoil: Callable[[dict[str, list[object]]], dict[str, list[object]]], message: str
) -> None:
    path = write_table(tmp_path / f"bad.{suffix}", spoil(candle_columns([0, 1, 2], TAPE_START)))
    with pytest.raises(PermanentFeedError, match=f"bad.{suffix}.*{message}"):
        ReplayFeed(path).check(("A",), "candle", "1m")


@pytest.mark.parametrize("column", ["ts_event", "close"])
def test_a_missing_value_is_refused_by_name_and_row(tmp_path: Path, column: str) -> None:
    columns = candle_columns([0, 1, 2], TAPE_START)
    columns[column] = [columns[column][0], None, columns[column][2]]
    for name in ("bad.parquet", "bad.csv"):
        with pytest.raises(PermanentFeedError, match=f"{name}, row 2: {column} is empty"):
            ReplayFeed(write_table(tmp_path / name, columns))


def test_a_trade_out_of_order_is_refused(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"ts_event": minutes(0, 2, 1), "price": [1.0] * 3, "amount": [1.0] * 3}
    with pytest.raises(PermanentFeedError, match="row 3: ts_event is earlier than row 2's"):
        ReplayFeed(write_table(tmp_path / "trades.parquet", columns))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 but not really")
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("ts_event,price,amount\n1,2\n")
    for path in (damaged, ragged, tmp_path / "absent.parquet", tmp_path / "absent.csv"):
        with pytest.raises(PermanentFeedError, match=f"{path.name} cannot be read"):
            ReplayFeed(path)
    with pytest.raises(PermanentFeedError, match=r"table\.xlsx is neither \.parquet nor \.csv"):
        ReplayFeed(tmp_path / "table.xlsx")


def test_a_mismatch_says_what_to_set(tmp_path: Path) -> None:
    candles = ReplayFeed(two_subject_candles(tmp_path / "candles.parquet"))
    ticks = ReplayFeed(trades(tmp_path / "ticks.parquet"), Fraction(60))
    with pytest.raises(PermanentFeedError, match=r"candles\.parquet holds candles.*set FEED_KIND=candle"):
        candles.check(("XRP",), "tick", "1s")
    with pytest.raises(PermanentFeedError, match=r"ticks\.parquet holds trades.*set FEED_KIND=tick"):
        ticks.check(("BTC",), "candle", "1m")
    with pytest.raises(PermanentFeedError, match="does not hold BTC: set FEED_SUBJECTS to some of ADA, XRP"):
        candles.check(("XRP", "BTC"), "candle", "1m")
    with pytest.raises(PermanentFeedError, match=r"FEED_SUBJECTS names BTC, ETH: name one, or add the column"):
        ticks.check(("BTC", "ETH"), "tick", "1s")
    fast = ReplayFeed(tmp_path / "candles.parquet", Fraction(1_000_000))
    with pytest.raises(PermanentFeedError, match=r"FEED_OPT_speed=1e.06 puts 1m records .* at most 60000"):
        fast.check(("XRP",), "candle", "1m")


def test_options_are_found_in_any_case_and_refused_by_name(tmp_path: Path) -> None:
    path = str(trades(tmp_path / "BTC.parquet"))
    assert ReplayFeed.from_options({"PATH": path, "Speed": " 2.5 "}).spacing_seconds("1s") == 0.4
    with pytest.raises(PermanentFeedError, match="FEED_SOURCE=replay needs FEED_OPT_path="):
        ReplayFeed.from_options({"path": " "})
    with pytest.raises(PermanentFeedError, match="no option FEED_OPT_pace; it has FEED_OPT_path, FEED_OPT_speed"):
        ReplayFeed.from_options({"path": path, "pace": "2"})
    with pytest.raises(PermanentFeedError, match="FEED_OPT_path is set twice"):
        ReplayFeed.from_options({"path": path, "PATH": path})


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast", "sNaN", "1/3", "1e400", "1e-400"])
def test_a_speed_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PermanentFeedError, match=r"FEED_OPT_speed is .*: set it to a number above 0"):
        parse_speed(text)


@pytest.mark.parametrize(("text", "speed"), [("60", Fraction(60)), ("0.1", Fraction(1, 10)), ("1e3", Fraction(1000))])
def test_a_speed_is_exact(text: str, speed: Fraction) -> None:
    assert parse_speed(text) == speed


def test_a_file_describes_itself(tmp_path: Path) -> None:
    candles = write_table(tmp_path / "XRPETH-1m-2019-10.parquet", candle_columns([0, 2, 3], TAPE_START))
    assert describe_file(candles) == ("candle", "1m", ("XRPETH",))
    assert describe_file(two_subject_candles(tmp_path / "two.csv")) == ("candle", "1m", ("ADA", "XRP"))
    assert describe_file(str(trades(tmp_path / "ETH.csv"))) == ("tick", "1s", ("ETH",))
    single = write_table(tmp_path / "single.csv", candle_columns([0], TAPE_START))
    with pytest.raises(PermanentFeedError, match="holds no two candles"):
        describe_file(single)


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("candles/XRPETH-1m-2019-10.parquet", ("candle", "1m", ("XRPETH",))),
        ("candles/ETHBTC-5m-2018-01.parquet", ("candle", "5m", ("ETHBTC",))),
        ("trades/XRPETH-2019-10.parquet", ("tick", "1s", ("XRPETH",))),
    ],
)
def test_real_files_play_whole(name: str, description: tuple[str, str, tuple[str, ...]]) -> None:
    path = real_file(name)
    assert describe_file(path) == description
    kind, granularity, subjects = description
    feed = ReplayFeed(path, Fraction(60), clock=SettableClock())
    table = pa.parquet.read_table(path).to_pylist()
    span = timedelta(days=21) / 60
    found = feed.history(subjects[0], kind, granularity, NOON - span, NOON)
    by_file_time = {record.metadata["file_time"]: record.values for record in found}
    for row in table if kind == "candle" else table[-1:]:
        played = by_file_time[row["ts_event"].astimezone(UTC).isoformat()]
        if kind == "candle":
            assert played == {column: row[column] for column in ("open", "high", "low", "close", "volume")}
        else:
            assert played["price"] == row["price"]
    seconds = {int(row["ts_event"].timestamp()) for row in table}
    assert len(by_file_time) == (len(table) if kind == "candle" else len(seconds))
    assert isinstance(found[0].ts_event, datetime)
