"""The market that the local venue plays: candles, trades, price updates and settlements by formula, for any time.

Everything is a pure function of its time, so that a test can say what the venue has without asking it. Rows are made in
the shapes that Binance and Pyth document; `expected_…` are the records that a source should make of them, transcribed
as plainly as can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator_node.entities.granularity import GRANULARITY_SECONDS
from coordinator_node.feeds import FeedDataRecord

SYMBOLS = ("BTCUSDT", "ETHUSDT", "ETHBTC")
FEED_IDS = {
    "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43": "BTC",
    "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace": "ETH",
}
HOURS_8_MS = 8 * 3_600_000

# How many trades happen in each second of a cycle; ids count them from the epoch.
TRADES_IN_SECOND = (2, 0, 1, 3, 0, 0, 1, 2)
TRADES_IN_CYCLE = sum(TRADES_IN_SECOND)


def utc(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def size_of(granularity: str) -> int:
    return GRANULARITY_SECONDS[granularity] * 1000


def kline(symbol: str, granularity: str, open_ms: int) -> list[Any]:
    """A row of /api/v3/klines; each candle has values of its own."""
    number = open_ms // size_of(granularity)
    low = 100 + SYMBOLS.index(symbol) * 1000 + number * 37 % 500
    return [
        open_ms,
        f"{low + 0.25:.8f}",
        f"{low + 2.5:.8f}",
        f"{low:.8f}",
        f"{low + 1 + number % 7 / 8:.8f}",
        f"{number % 13 + 0.125:.8f}",
        open_ms + size_of(granularity) - 1,
        f"{low * 2:.8f}",
        number % 100,
        "1.00000000",
        f"{low:.8f}",
        "0",
    ]


def kline_event(symbol: str, granularity: str, open_ms: int, now_ms: int, *, closed: bool) -> dict[str, Any]:
    """A message of <symbol>@kline_<interval>."""
    row = kline(symbol, granularity, open_ms)
    body = {
        "t": open_ms,
        "T": row[6],
        "s": symbol,
        "i": granularity,
        "f": 1,
        "L": 2,
        "o": row[1],
        "c": row[4] if closed else row[1],
        "h": row[2],
        "l": row[3],
        "v": row[5] if closed else "0.00000000",
        "n": row[8],
        "x": closed,
        "q": row[7],
        "V": row[9],
        "Q": row[10],
        "B": "0",
    }
    return {"e": "kline", "E": now_ms, "s": symbol, "k": body}


def trades(symbol: str, start_ms: int, end_ms: int) -> Iterator[dict[str, Any]]:
    """The rows of /api/v3/aggTrades with start_ms <= T < end_ms."""
    for second in range(start_ms // 1000, -(-end_ms // 1000)):
        cycle, place = divmod(second, len(TRADES_IN_SECOND))
        first = cycle * TRADES_IN_CYCLE + sum(TRADES_IN_SECOND[:place])
        for index in range(TRADES_IN_SECOND[place]):
            at = second * 1000 + 200 + 250 * index
            if start_ms <= at < end_ms:
                yield _trade(symbol, first + index, at)


def trade_time(trade_id: int) -> int:
    cycle, place = divmod(trade_id, TRADES_IN_CYCLE)
    for second, count in enumerate(TRADES_IN_SECOND):
        if place < count:
            return (cycle * len(TRADES_IN_SECOND) + second) * 1000 + 200 + 250 * place
        place -= count
    raise AssertionError


def trade_row(symbol: str, trade_id: int) -> dict[str, Any]:
    return _trade(symbol, trade_id, trade_time(trade_id))


def _trade(symbol: str, trade_id: int, at: int) -> dict[str, Any]:
    price = 200 + SYMBOLS.index(symbol) * 1000 + trade_id * 31 % 400 + 0.5
    return {
        "a": trade_id,
        "p": f"{price:.8f}",
        "q": f"{trade_id % 5 + 0.25:.8f}",
        "f": trade_id * 2,
        "l": trade_id * 2 + 1,
        "T": at,
        "m": trade_id % 2 == 0,
        "M": True,
    }


def book(symbol: str, now_ms: int) -> dict[str, Any]:
    """A partial order book."""
    middle = 300 + now_ms // 1000 % 100
    bids = [[f"{middle - 1 - level:.8f}", f"{level + 1:.8f}"] for level in range(20)]
    asks = [[f"{middle + 1 + level:.8f}", f"{level + 2:.8f}"] for level in range(20)]
    return {"lastUpdateId": now_ms, "bids": bids, "asks": asks}


def settlement(symbol: str, time_ms: int) -> dict[str, Any]:
    """A row of /fapi/v1/fundingRate."""
    number = time_ms // HOURS_8_MS
    return {
        "symbol": symbol,
        "fundingTime": time_ms,
        "fundingRate": f"{(number % 7 - 3) / 10000:.8f}",
        "markPrice": f"{500 + number % 50:.8f}" if number % 5 else "",
    }


class PythMarket:
    """Updates of Pyth's feeds: one at about every second, none while the market is closed."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, int]] = []  # from, to in epoch seconds

    def has_update(self, second: int) -> bool:
        return second * 7919 % 11 != 0 and not any(start <= second < end for start, end in self.closed)

    def seconds(self, start: int, end: int) -> list[int]:
        """The seconds with start <= second < end that have an update."""
        return [second for second in range(start, end) if self.has_update(second)]

    def first_from(self, second: int, end: int) -> int | None:
        while second < end and not self.has_update(second):
            second = max([second + 1, *(closed[1] for closed in self.closed if closed[0] <= second < closed[1])])
        return second if second < end else None

    def last_before(self, second: int) -> int:
        second -= 1
        while not self.has_update(second):
            second = min([second, *(closed[0] for closed in self.closed if closed[0] <= second < closed[1])]) - 1
        return second

    def update(self, feed_id: str, second: int, *, first: bool = True, told: bool = True) -> dict[str, Any]:
        """An element of `parsed`: the first update of a second, or a later one; `told` is whether it says what of."""
        base = 6_000_000_000_000 if FEED_IDS[feed_id] == "BTC" else 300_000_000_000
        price = base + second * 104_729 % 1_000_000_007 + (0 if first else 12_345)
        previous = self.last_before(second) if first else second
        body = {"price": str(price), "conf": str(1_000_000 + second % 1000), "expo": -8, "publish_time": second}
        return {
            "id": feed_id,
            "price": body,
            "ema_price": dict(body),
            "metadata": {
                "slot": second * 2,
                "proof_available_time": second + 1,
                "prev_publish_time": previous if told else None,
            },
        }


def expected_klines(subject: str, symbol: str, granularity: str, start_ms: int, end_ms: int) -> list[FeedDataRecord]:
    """Binance's candles with start_ms <= open time and close before `end_ms`."""
    size = size_of(granularity)
    names = ("open", "high", "low", "close", "volume")
    return [
        FeedDataRecord(
            "binance",
            subject,
            "candle",
            granularity,
            utc(open_ms),
            dict(zip(names, map(float, kline(symbol, granularity, open_ms)[1:6]), strict=True)),
        )
        for open_ms in range(-(-start_ms // size) * size, end_ms - size + 1, size)
    ]


def expected_trades(subject: str, symbol: str, granularity: str, start_ms: int, end_ms: int) -> list[FeedDataRecord]:
    """Binance's ticks of the whole intervals from `start_ms` to `end_ms`, both starts of an interval."""
    found = []
    for start in range(start_ms, end_ms, size_of(granularity)):
        rows = list(trades(symbol, start, start + size_of(granularity)))
        if rows:
            values = {"price": float(rows[-1]["p"]), "volume": sum(float(row["q"]) for row in rows)}
            meta = {"trade_id": rows[-1]["a"]}
            found.append(FeedDataRecord("binance", subject, "tick", granularity, utc(rows[-1]["T"]), values, meta))
    return found


def expected_updates(
    market: PythMarket, feed_id: str, kind: str, granularity: str, start_ms: int, end_ms: int
) -> list[FeedDataRecord]:
    """Pyth's ticks or candles of the whole intervals from `start_ms` to `end_ms`, both starts of an interval."""
    found = []
    for start in range(start_ms, end_ms, size_of(granularity)):
        seconds = market.seconds(start // 1000, (start + size_of(granularity)) // 1000)
        if seconds:
            rows = [market.update(feed_id, second)["price"] for second in seconds]
            found.append(_pyth_record(FEED_IDS[feed_id], kind, granularity, start, rows))
    return found


def _pyth_record(
    subject: str, kind: str, granularity: str, start_ms: int, rows: Sequence[dict[str, Any]]
) -> FeedDataRecord:
    prices = [int(row["price"]) / 10**8 for row in rows]
    meta = {"conf": int(rows[-1]["conf"]) / 10**8}
    if kind == "tick":
        at = utc(rows[-1]["publish_time"] * 1000)
        return FeedDataRecord("pyth", subject, "tick", granularity, at, {"price": prices[-1]}, meta)
    values = {"open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1], "volume": 0.0}
    return FeedDataRecord("pyth", subject, "candle", granularity, utc(start_ms), values, meta)
