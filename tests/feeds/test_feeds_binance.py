"""What only Binance does: its symbols, its kinds, its weights and refusals; the shared suite has the rest."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_venue import NOON_MS, LocalVenue
from venue_cases import PATIENT, QUICK, Heard, binance_feed
from venue_market import HOURS_8_MS, expected_klines, settlement, size_of, utc

from coordinator_node.entities.granularity import GRANULARITY_SECONDS
from coordinator_node.feeds import FeedDataRecord, FeedFetchRequest, FeedSubscription
from coordinator_node.feeds.binance import BinanceFeed, funding
from coordinator_node.feeds.binance.errors import feed_error
from coordinator_node.feeds.binance.symbols import Symbols
from coordinator_node.feeds.binance.weight import WeightGuard
from coordinator_node.feeds.errors import NoHistoryError, PermanentFeedError, RetryableFeedError

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "binance"


@pytest.fixture
def venue() -> Iterator[LocalVenue]:
    with LocalVenue() as made:
        yield made


def fetch(venue: LocalVenue, kind: str, granularity: str, *subjects: str, **bounds: object) -> list[FeedDataRecord]:
    request = FeedFetchRequest(subjects or ("BTC",), kind, granularity, **bounds)
    return list(asyncio.run(binance_feed(venue).fetch(request)))


def recorded(name: str) -> Any:
    path = RECORDED / name
    if not path.exists():
        pytest.skip(f"the recorded body {name} is not on this machine")
    return json.loads(path.read_text())


def test_recorded_candles_come_as_they_were_recorded(venue: LocalVenue) -> None:
    rows = recorded("klines-BTCUSDT-1d.json")
    day = 86_400_000
    venue.now_ms = rows[-1][0] + day // 2  # in the middle of the last one, which still runs
    venue.reply("klines", rows)
    found = fetch(venue, "candle", "1d", start_ts=utc(rows[0][0]))
    names = ("open", "high", "low", "close", "volume")
    assert [(each.ts_event, each.values) for each in found] == [
        (utc(row[0]), dict(zip(names, map(float, row[1:6]), strict=True))) for row in rows[:-1]
    ]
    venue.now_ms = rows[-1][0] + day + 2000
    venue.reply("klines", rows)
    assert len(fetch(venue, "candle", "1d", start_ts=utc(rows[0][0]))) == len(rows)


def test_recorded_trades_make_the_last_of_each_interval(venue: LocalVenue) -> None:
    """Recorded single trades, in the names of aggregate ones."""
    rows = [
        {"a": row["id"], "p": row["price"], "q": row["qty"], "T": row["time"]}
        for row in recorded("trades-BTCUSDT.json")
    ]
    venue.now_ms = rows[-1]["T"] + 60_000
    venue.reply("aggTrades", rows)
    venue.reply("aggTrades", [])
    found = fetch(venue, "tick", "1m", start_ts=utc(rows[0]["T"]))
    assert [each.ts_event for each in found] == [utc(rows[-1]["T"])]
    assert found[0].values == {"price": 65816.25, "volume": 0.01358}
    assert found[0].metadata == {"trade_id": 1400427}


@pytest.mark.parametrize("granularity", GRANULARITY_SECONDS)
def test_every_granularity_is_itself(venue: LocalVenue, granularity: str) -> None:
    async def run() -> None:
        size = size_of(granularity)
        sink = Heard()
        feed = binance_feed(venue)
        begin = (venue.now_ms - 2000) // size * size
        handle = await feed.listen(FeedSubscription(("BTC",), "candle", granularity), sink)
        venue.advance(3 * size / 1000)
        expected = expected_klines("BTC", "BTCUSDT", granularity, begin, venue.now_ms)
        await sink.holds("BTC", len(expected))
        await handle.stop()
        assert sink.of("BTC") == expected
        past = FeedFetchRequest(("BTC",), "candle", granularity, start_ts=utc(begin), end_ts=utc(begin + 3 * size))
        assert list(await feed.fetch(past)) == expected[:3]
        assert venue.asked_for("/stream") == [f"/stream?streams=btcusdt@kline_{granularity}"]

    asyncio.run(run())


def test_a_page_of_records_costs_one_page_of_the_venue(venue: LocalVenue) -> None:
    start = NOON_MS - 2500 * 60_000
    found = fetch(venue, "candle", "1m", start_ts=utc(start), limit=1000)
    assert found == expected_klines("BTC", "BTCUSDT", "1m", start, start + 1000 * 60_000)
    assert len(venue.asked_for("klines")) == 1
    venue.now_ms = start + 1000 * 60_000 + 1999  # only the next one shows that the last is over
    assert fetch(venue, "candle", "1m", start_ts=utc(start), end_ts=utc(start + 1000 * 60_000), limit=1000) == found
    venue.now_ms = start + 1000 * 60_000 - 1  # and now it still runs
    assert fetch(venue, "candle", "1m", start_ts=utc(start), limit=1000) == found[:999]


@pytest.mark.parametrize(
    ("subject", "symbol"),
    [
        ("BTC", "BTCUSDT"),
        ("btc", "BTCUSDT"),
        ("BTCUSDT", "BTCUSDT"),
        ("ETHBTC", "ETHBTC"),
        ("BTC/USDT", "BTCUSDT"),
        ("eth-btc", "ETHBTC"),
        ("WUSDT", "WUSDT"),
        ("WBTC", "WBTCUSDT"),
        ("BETH", "BETHUSDT"),
        ("USDC", "USDCUSDT"),
        ("SOLEUR", "SOLEUR"),
        ("GOLD", "PAXGUSDT"),
    ],
)
def test_a_subject_is_a_symbol(subject: str, symbol: str) -> None:
    assert Symbols("usdt", {"gold": "paxgusdt"}).symbol_of(subject) == symbol


def test_the_quote_can_be_another() -> None:
    symbols = Symbols("EUR", {})
    assert [symbols.symbol_of(each) for each in ("BTC", "BTCUSDT", "EUR")] == ["BTCEUR", "BTCUSDT", "EUREUR"]


def test_options_reach_the_venue(venue: LocalVenue) -> None:
    feed = BinanceFeed.from_options({**venue.binance_options(), "QUOTE": "btc", "symbol_gold": "BTCUSDT"})
    request = FeedFetchRequest(("ETH", "Gold"), "candle", "1m", start_ts=utc(NOON_MS - 120_000), limit=2)
    assert [each.subject for each in asyncio.run(feed.fetch(request))] == ["ETH", "Gold"]
    assert {each.rpartition("symbol=")[2].partition("&")[0] for each in venue.asked_for("klines")} == {
        "ETHBTC",
        "BTCUSDT",
    }
    with pytest.raises(PermanentFeedError, match=r"no option FEED_OPT_key; it has FEED_OPT_api_url.*symbol_<SUBJECT>"):
        BinanceFeed.from_options({"key": "x"})
    with pytest.raises(PermanentFeedError, match="FEED_OPT_poll_seconds is 'x'"):
        BinanceFeed.from_options({"poll_seconds": "x"})


def test_polling_goes_by_the_setting_unless_the_option_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_POLL_SECONDS", "17")
    assert BinanceFeed.from_options({})._poll_seconds == 17
    assert BinanceFeed.from_options({"poll_seconds": "3"})._poll_seconds == 3


def test_subjects_are_what_is_traded_in_the_quote(venue: LocalVenue) -> None:
    described = asyncio.run(binance_feed(venue).list_subjects())
    assert [(each.symbol, each.display_name, each.metadata["symbol"]) for each in described] == [
        ("BTC", "BTC/USDT", "BTCUSDT"),
        ("ETH", "ETH/USDT", "ETHUSDT"),
    ]
    assert described[0].granularities == tuple(GRANULARITY_SECONDS)
    for answer in ({}, {"symbols": 3}, {"symbols": [{}]}, []):
        venue.reply("exchangeInfo", answer)
        with pytest.raises(RetryableFeedError, match="list of symbols cannot be read"):
            asyncio.run(binance_feed(venue).list_subjects())


def test_ticks_of_a_new_symbol_are_not_searched_hour_by_hour(venue: LocalVenue) -> None:
    listed = NOON_MS - 3_600_000
    venue.reply("aggTrades", [])
    venue.reply("klines", [[listed, "1", "1", "1", "1", "1"]])
    found = fetch(venue, "tick", "1m", start_ts=utc(NOON_MS - 10**11), limit=5)
    assert len(found) == 5
    assert len(venue.asked) < 10
    venue.reply("aggTrades", [])
    venue.reply("klines", [])
    assert fetch(venue, "tick", "1m", start_ts=utc(NOON_MS - 10**11)) == []


def test_depth_is_the_last_book_of_each_interval(venue: LocalVenue) -> None:
    async def run() -> None:
        sink = Heard()
        handle = await binance_feed(venue, QUICK).listen(FeedSubscription(("BTC",), "depth", "1s"), sink)
        async with asyncio.timeout(5):
            while len(sink.of("BTC")) < 2:
                venue.advance(0.1)
                await asyncio.sleep(0.02)
        await handle.stop()
        first, second = sink.of("BTC")[:2]
        assert first.ts_event < second.ts_event
        assert first.ts_event >= utc(NOON_MS)  # by the venue's clock, not by this machine's
        assert first.ts_event < utc(NOON_MS + 20_000)
        assert first.values["bid"] == first.values["bids"][0][0] == first.values["price"] - 1
        assert first.values["ask"] == first.values["asks"][0][0] == first.values["price"] + 1
        assert len(first.values["bids"]) == len(first.values["asks"]) == 20
        assert venue.asked_for("/stream") == ["/stream?streams=btcusdt@depth20@100ms"]

    asyncio.run(run())


def test_depth_is_polled_without_a_stream_and_has_no_past(venue: LocalVenue) -> None:
    async def run() -> None:
        venue.refuse_streams = True
        sink = Heard()
        handle = await binance_feed(venue, QUICK).listen(FeedSubscription(("BTC", "ETH"), "depth", "1s"), sink)
        await sink.holds("BTC", 1)
        await sink.holds("ETH", 1)
        await handle.stop()

    asyncio.run(run())
    with pytest.raises(NoHistoryError, match="no past depth records: they can only be heard"):
        fetch(venue, "depth", "1s")


def test_funding_is_what_was_settled(venue: LocalVenue) -> None:
    eight = range(NOON_MS // HOURS_8_MS * HOURS_8_MS - 1200 * HOURS_8_MS, NOON_MS, HOURS_8_MS)
    found = fetch(venue, "funding", "1h", start_ts=utc(eight[0]))
    assert len(found) == 1201 == len(eight)
    for time_ms, record in zip(eight, found, strict=True):
        row = settlement("BTCUSDT", time_ms)
        values = {"funding_rate": float(row["fundingRate"])}
        assert record.ts_event == utc(time_ms)
        assert record.values == (
            values if row["markPrice"] == "" else {**values, "mark_price": float(row["markPrice"])}
        )
    assert len(venue.asked_for("fundingRate")) == 2
    daily = fetch(venue, "funding", "1d", start_ts=utc(eight[0] // 86_400_000 * 86_400_000 + 86_400_000))
    assert [record.ts_event.hour for record in daily] == [16] * len(daily)


def test_funding_is_heard_when_it_is_settled(venue: LocalVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funding.Funding, "settle_ms", 100)

    async def run() -> None:
        sink = Heard()
        next_settlement = (NOON_MS // HOURS_8_MS + 1) * HOURS_8_MS
        venue.now_ms = next_settlement - 300
        handle = await binance_feed(venue).listen(FeedSubscription(("BTC",), "funding", "1s"), sink)
        assert venue.asked_for("/market/stream") == ["/market/stream?streams=btcusdt@markPrice"]
        venue.advance(0.1)  # says that the settlement is in 0.2 s
        venue.twist = lambda messages: []
        venue.advance(10)
        await sink.holds("BTC", 1)
        await handle.stop()
        assert [each.ts_event for each in sink.of("BTC")] == [utc(next_settlement)]

    asyncio.run(run())


def test_an_unknown_symbol_says_what_to_set(venue: LocalVenue) -> None:
    with pytest.raises(PermanentFeedError, match=r"Invalid symbol.*FEED_OPT_symbol_NOPE or FEED_OPT_quote") as caught:
        fetch(venue, "candle", "1m", "NOPE")
    assert caught.value.subject == "NOPE"
    for kind in ("tick", "depth", "funding"):
        with pytest.raises(PermanentFeedError, match="Invalid symbol") as caught:
            asyncio.run(binance_feed(venue).listen(FeedSubscription(("BTC", "NOPE"), kind, "1m"), Heard()))
        assert caught.value.subject == "NOPE"


@pytest.mark.parametrize(
    ("status", "code", "expected", "retry_after"),
    [
        (418, -1003, RetryableFeedError, 120.0),
        (429, -1003, RetryableFeedError, 60.0),
        (400, -1003, RetryableFeedError, None),
        (400, -1001, RetryableFeedError, None),
        (408, None, RetryableFeedError, None),
        (504, -1007, RetryableFeedError, None),
        (400, -1121, PermanentFeedError, None),
        (400, -1127, PermanentFeedError, None),
        (404, None, PermanentFeedError, None),
        (451, 0, PermanentFeedError, None),
    ],
)
def test_refusals_are_told_apart(
    status: int, code: int | None, expected: type[Exception], retry_after: float | None
) -> None:
    error = feed_error("the klines", status, {}, code, "reason", "BTC")
    assert type(error) is expected
    assert getattr(error, "retry_after", None) == retry_after
    assert getattr(error, "subject", None) == ("BTC" if code == -1121 else None)
    assert f"HTTP {status}: reason" in str(error)


def test_the_weight_of_a_minute_is_waited_out() -> None:
    now = 0.0
    guard = WeightGuard(6000, lambda: now)
    date = "Wed, 01 May 2024 12:00:45 GMT"
    guard.note({"X-MBX-USED-WEIGHT-1M": "4799", "Date": date})
    assert guard.wait_seconds() == 0
    guard.note({"X-MBX-USED-WEIGHT-1M": "4800", "Date": date})
    assert guard.wait_seconds() == 15
    guard.note({"Date": date})
    now = 10.0
    assert guard.wait_seconds() == 5
    guard.note({"X-MBX-USED-WEIGHT-1M": "4800"})
    assert guard.wait_seconds() == 60
    guard.note({"X-MBX-USED-WEIGHT-1M": "12", "Date": date})
    assert guard.wait_seconds() == 0


def test_a_used_up_weight_delays_the_next_request(venue: LocalVenue) -> None:
    venue.used_weight = 5900
    venue.now_ms = NOON_MS + 59_000  # a second before the next minute

    async def run() -> None:
        feed = binance_feed(venue)
        request = FeedFetchRequest(("BTC",), "candle", "1m", start_ts=utc(NOON_MS - 300_000), limit=2)
        waiting = asyncio.create_task(feed.fetch(request))
        async with asyncio.timeout(5):
            while not venue.asked_for("time"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert venue.asked_for("klines") == []
        assert len(await waiting) == 2
        assert len(venue.asked_for("klines")) == 1

    asyncio.run(run())


def test_only_the_warnings_of_its_import_are_silenced() -> None:
    """In a process of its own, where every warning is an error and nothing is imported yet."""
    program = (
        "import warnings\n"
        "from coordinator_node.feeds.binance.library import binance_library\n"
        "binance_library()\n"
        "try:\n    warnings.warn('websockets.legacy is deprecated', DeprecationWarning)\n"
        "except DeprecationWarning:\n    print('still an error')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "still an error\n"


def test_a_message_of_another_stream_or_a_running_candle_is_of_no_use(venue: LocalVenue) -> None:
    async def run() -> None:
        sink = Heard()
        handle = await binance_feed(venue, PATIENT).listen(FeedSubscription(("BTC",), "candle", "1m"), sink)
        for text in (
            '{"result": null, "id": 1}',
            '{"stream": "ethusdt@kline_1m", "data": {}}',
            '{"e": "serverShutdown"}',
        ):
            venue.send(text)
        venue.advance(30)
        venue.advance(40)
        await sink.holds("BTC", 1)
        await handle.stop()
        assert [each.ts_event for each in sink.of("BTC")][-1] == utc(NOON_MS)

    asyncio.run(run())
