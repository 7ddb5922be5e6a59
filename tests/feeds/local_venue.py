"""A venue on this machine: Binance's REST and WebSocket, Pyth's Hermes (REST and server-sent events) and Benchmarks.

It runs on a thread of its own, so that sources in any event loop, thread or process can reach it, and plays the market
of `venue_market`. Its clock stands until `advance` moves it; what happens meanwhile goes to whoever is connected, and
is lost to whoever is not. Its faults are set by the test:

    with LocalVenue() as venue:
        feed = create_default_registry().create("binance", venue.binance_options())
        venue.fail("klines", 429, headers={"Retry-After": "2"})
        venue.drop_streams()
        venue.advance(60)
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any, Self

from aiohttp import web
from venue_market import (
    FEED_IDS,
    HOURS_8_MS,
    SYMBOLS,
    PythMarket,
    book,
    kline,
    kline_event,
    settlement,
    size_of,
    trade_row,
    trade_time,
    trades,
    utc,
)

NOON_MS = 1_714_564_800_000  # 2024-05-01T12:00:00Z

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """An answer given instead of the right one to the next `times` requests whose path holds `path`."""

    path: str
    status: int
    headers: dict[str, str]
    body: str
    times: int


@dataclass
class Connection:
    """A stream that somebody listens to: its names at the venue, and how to write to it."""

    names: list[str]
    send: Callable[[str], Awaitable[None]]
    close: Callable[[], Awaitable[Any]]
    sent: int = 0


@dataclass
class LocalVenue:
    """The venue; a context manager that starts and stops it."""

    now_ms: int = NOON_MS
    api_key: str | None = None  # what Pyth asks for; None for nothing
    used_weight: int = 1
    refuse_streams: bool = False
    stalled: bool = False  # connected streams say nothing
    benchmarks_behind: int = 0  # seconds
    twist: Callable[[list[Any]], list[Any]] = list  # what becomes of the messages of one `advance` on one stream
    spoil: Callable[[str, Any], Any] = lambda path, row: row  # what becomes of a row or message
    pyth: PythMarket = field(default_factory=PythMarket)

    def __post_init__(self) -> None:
        self.asked: list[str] = []  # the path and query of every request
        self.connections: list[Connection] = []
        self._faults: list[Fault] = []
        self._cuts: list[Fault] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="local venue", daemon=True)
        self._hanging: asyncio.Event | None = None
        self.port = 0

    # What a test does with it, from any thread.

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def binance_options(self) -> dict[str, str]:
        """FEED_OPT_ options, without their prefix."""
        socket = f"ws://127.0.0.1:{self.port}"
        return {
            "api_url": f"{self.url}/api",
            "stream_url": socket,
            "futures_url": f"{self.url}/fapi",
            "futures_stream_url": socket,
        }

    def pyth_environ(self) -> dict[str, str]:
        """Variables of the environment."""
        return {"PYTH_HERMES_URL": self.url, "PYTH_BENCHMARKS_URL": self.url, "PYTH_API_KEY": self.api_key or ""}

    def fail(
        self, path: str, status: int, *, headers: dict[str, str] | None = None, body: str = "", times: int = 1
    ) -> None:
        self._faults.append(Fault(path, status, headers or {}, body, times))

    def reply(self, path: str, answer: Any, *, times: int = 1) -> None:
        """Gives a body of its own, such as a recorded one, to the next requests."""
        self.fail(path, 200, headers={"Content-Type": "application/json"}, body=json.dumps(answer), times=times)

    def advance(self, seconds: float) -> None:
        """Moves the clock on and tells the connected streams what happened."""
        self._run(self._advance(self.now_ms + round(seconds * 1000)))

    def drop_streams(self) -> None:
        """Closes every stream."""
        self._run(self._drop())

    def send(self, text: str) -> None:
        """Writes a text to every stream as it is."""
        self._run(self._send_all(text))

    def hang(self) -> None:
        """From now on no request is answered, until `go_on`."""
        self._run(self._set_hanging(True))

    def go_on(self) -> None:
        self._run(self._set_hanging(False))

    def cut(self, path: str, *, times: int = 1) -> None:
        """Breaks the connection in the middle of the next right answers to requests whose path holds `path`."""
        self._cuts.append(Fault(path, 200, {}, "", times))

    def asked_for(self, path: str) -> list[str]:
        return [each for each in self.asked if path in each]

    # The server, on its own thread.

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        routes: dict[str, Handler] = {
            "/api/v3/time": self._time,
            "/fapi/v1/time": self._time,
            "/api/v3/klines": self._klines,
            "/api/v3/aggTrades": self._trades,
            "/api/v3/depth": self._depth,
            "/api/v3/ticker/price": self._ticker,
            "/api/v3/exchangeInfo": self._exchange_info,
            "/fapi/v1/premiumIndex": self._ticker,
            "/fapi/v1/fundingRate": self._funding,
            "/stream": self._socket,
            "/market/stream": self._socket,
            "/v2/updates/price/latest": self._latest,
            "/v2/updates/price/stream": self._events,
            "/v2/updates/price/{second}": self._price_at,
            "/v1/updates/price/{second}/{interval}": self._window,
        }
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._set_hanging(False)
        await self._drop()
        await self._runner.cleanup()
        # Whoever left without a word leaves a task that waits for it.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _set_hanging(self, hanging: bool) -> None:
        if self._hanging is not None:
            self._hanging.set()
        self._hanging = asyncio.Event() if hanging else None

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if self._hanging is not None:
            await self._hanging.wait()
        fault = next((each for each in self._faults if each.path in request.path and each.times > 0), None)
        if fault is not None:
            fault.times -= 1
            response: web.StreamResponse = web.Response(status=fault.status, headers=fault.headers, text=fault.body)
            if "Content-Type" in fault.headers:
                response = web.Response(status=fault.status, headers=fault.headers, body=fault.body.encode())
        elif "/updates/price" in request.path and not self._has_key(request):
            response = web.Response(status=401, text="Unauthorized")
        else:
            response = await handler(request)
        cut = next((each for each in self._cuts if each.path in request.path and each.times > 0), None)
        if cut is not None and isinstance(response, web.Response):
            cut.times -= 1
            return await self._half(request, response)
        if not response.prepared:
            self._stamp(response)
        return response

    async def _half(self, request: web.Request, whole: web.Response) -> web.StreamResponse:
        """Half of an answer, and the end of the connection."""
        body = whole.body
        assert isinstance(body, bytes)
        half = web.StreamResponse(headers={"Content-Length": str(len(body)), "Content-Type": "application/json"})
        self._stamp(half)
        await half.prepare(request)
        await half.write(body[: len(body) // 2])
        assert request.transport is not None
        request.transport.close()
        return half

    def _has_key(self, request: web.Request) -> bool:
        return self.api_key is None or request.headers.get("Authorization") == f"Bearer {self.api_key}"

    def _stamp(self, response: web.StreamResponse) -> None:
        response.headers["Date"] = format_datetime(utc(self.now_ms), usegmt=True)
        response.headers["X-MBX-USED-WEIGHT-1M"] = str(self.used_weight)

    # Binance.

    async def _time(self, request: web.Request) -> web.Response:
        return web.json_response({"serverTime": self.now_ms})

    def _unknown_symbol(self, request: web.Request) -> web.Response | None:
        if request.query.get("symbol") in SYMBOLS:
            return None
        return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)

    def _rows(self, request: web.Request, rows: Sequence[Any]) -> web.Response:
        limit = min(int(request.query.get("limit", "500")), 1000)
        return web.json_response([self.spoil(request.path, row) for row in rows[:limit]])

    async def _klines(self, request: web.Request) -> web.Response:
        granularity = request.query["interval"]
        size = size_of(granularity)
        start = -(-int(request.query.get("startTime", "0")) // size) * size
        end = min(int(request.query.get("endTime", self.now_ms)), self.now_ms)
        limit = min(int(request.query.get("limit", "500")), 1000)
        opens = range(start, min(end + 1, start + limit * size), size)
        refused = self._unknown_symbol(request)
        return refused or self._rows(request, [kline(request.query["symbol"], granularity, each) for each in opens])

    async def _trades(self, request: web.Request) -> web.Response:
        refused = self._unknown_symbol(request)
        if refused is not None:
            return refused
        symbol, limit = request.query["symbol"], min(int(request.query.get("limit", "500")), 1000)
        if "fromId" in request.query:
            first = int(request.query["fromId"])
            ids = range(first, first + limit)
            rows = [trade_row(symbol, each) for each in ids if trade_time(each) <= self.now_ms]
        else:
            start, end = int(request.query["startTime"]), int(request.query["endTime"])
            assert end - start < 3_600_000, "the venue refuses more than an hour"
            rows = list(trades(symbol, start, min(end, self.now_ms) + 1))
        return self._rows(request, rows)

    async def _depth(self, request: web.Request) -> web.Response:
        return self._unknown_symbol(request) or web.json_response(book(request.query["symbol"], self.now_ms))

    async def _ticker(self, request: web.Request) -> web.Response:
        return self._unknown_symbol(request) or web.json_response({"symbol": request.query["symbol"], "price": "1"})

    async def _exchange_info(self, request: web.Request) -> web.Response:
        coins = [("BTC", "USDT", "TRADING"), ("ETH", "USDT", "TRADING"), ("ETH", "BTC", "TRADING")]
        coins.append(("LUNA", "USDT", "BREAK"))
        rows = [
            {"symbol": base + quote, "status": status, "baseAsset": base, "quoteAsset": quote}
            for base, quote, status in coins
        ]
        return web.json_response({"symbols": rows})

    async def _funding(self, request: web.Request) -> web.Response:
        start = -(-int(request.query["startTime"]) // HOURS_8_MS) * HOURS_8_MS
        times = range(start, self.now_ms + 1, HOURS_8_MS)
        rows = [settlement(request.query["symbol"], each) for each in times[:1000]]
        return self._unknown_symbol(request) or self._rows(request, rows)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_streams:
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(request.query["streams"].split("/"), socket.send_str, socket.close)
        self.connections.append(connection)
        try:
            async for _ in socket:
                pass
        finally:
            self._forget(connection)
        return socket

    # Pyth.

    def _updates(self, path: str, rows: Sequence[Any]) -> dict[str, Any]:
        return {"binary": {"encoding": "hex", "data": ["00"]}, "parsed": [self.spoil(path, row) for row in rows]}

    def _unknown_ids(self, ids: Sequence[str]) -> web.Response | None:
        missing = ["0x" + each for each in ids if each not in FEED_IDS]
        return web.Response(status=404, text=f"Price ids not found: {', '.join(missing)}") if missing else None

    async def _latest(self, request: web.Request) -> web.Response:
        ids = request.query.getall("ids[]")
        refused = self._unknown_ids(ids)
        if refused is not None:
            return refused
        second = self.pyth.last_before(self.now_ms // 1000 + 1)
        return web.json_response(self._updates("latest", [self.pyth.update(each, second, first=False) for each in ids]))

    async def _price_at(self, request: web.Request) -> web.Response:
        ids = request.query.getall("ids[]")
        refused = self._unknown_ids(ids)
        second = self.pyth.first_from(int(request.match_info["second"]), self.now_ms // 1000 + 1)
        if refused is not None or second is None:
            return refused or web.Response(status=404, text="Update data not found")
        return web.json_response(self._updates("at", [self.pyth.update(each, second) for each in ids]))

    async def _window(self, request: web.Request) -> web.Response:
        assert "ids[]" not in request.query, "Benchmarks refuses ids[]"
        interval = int(request.match_info["interval"])
        assert interval <= 60, "Benchmarks refuses more than 60 seconds"
        ids = request.query.getall("ids")
        refused = self._unknown_ids(ids)
        if refused is not None:
            return refused
        start = int(request.match_info["second"])
        newest = self.now_ms // 1000 - self.benchmarks_behind
        seconds = self.pyth.seconds(start, min(start + interval, newest) + 1)
        rows = [[self.pyth.update(each, second, told=False) for each in ids] for second in seconds]
        return web.json_response([self._updates("window", row) for row in rows])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        ids = request.query.getall("ids[]")
        refused = self._unknown_ids(ids)
        if self.refuse_streams or refused is not None:
            return refused or web.Response(status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._stamp(response)
        await response.prepare(request)
        await response.write(b": welcome\n\n")
        over = asyncio.Event()

        async def send(text: str) -> None:
            await response.write(f"data:{text}\n\n".encode())

        async def close() -> None:
            over.set()

        connection = Connection(ids, send, close)
        self.connections.append(connection)
        try:
            await over.wait()
        finally:
            self._forget(connection)
        return response

    # What happens.

    async def _advance(self, until_ms: int) -> None:
        since_ms, self.now_ms = self.now_ms, until_ms
        if self.stalled:
            return
        for connection in list(self.connections):
            messages = [each for name in connection.names for each in self._happened(name, since_ms)]
            for message in self.twist([self.spoil("stream", each) for each in messages]):
                await self._send(connection, json.dumps(message))

    def _happened(self, name: str, since_ms: int) -> list[Any]:
        """The messages of one stream for what happened in (since, now]."""
        if name in FEED_IDS:
            seconds = self.pyth.seconds(since_ms // 1000 + 1, self.now_ms // 1000 + 1)
            return [self._updates("stream", [self.pyth.update(name, each)]) for each in seconds]
        symbol, _, what = name.partition("@")
        return [{"stream": name, "data": each} for each in self._payloads(symbol.upper(), what, since_ms)]

    def _payloads(self, symbol: str, what: str, since_ms: int) -> list[Any]:
        if symbol not in SYMBOLS:
            return []
        if what == "aggTrade":
            found = trades(symbol, since_ms + 1, self.now_ms + 1)
            return [{"e": "aggTrade", "E": each["T"] + 1, "s": symbol, **each} for each in found]
        if what.startswith("kline_"):
            return self._kline_events(symbol, what.removeprefix("kline_"), since_ms)
        if what.startswith("depth20"):
            return [book(symbol, self.now_ms)]
        assert what == "markPrice"
        return [{"e": "markPriceUpdate", "E": self.now_ms, "s": symbol, "T": self._next_settlement(), "r": "0.0001"}]

    def _next_settlement(self) -> int:
        return (self.now_ms // HOURS_8_MS + 1) * HOURS_8_MS

    def _kline_events(self, symbol: str, granularity: str, since_ms: int) -> list[Any]:
        size = size_of(granularity)
        first_close = (since_ms // size + 1) * size
        closed = [
            kline_event(symbol, granularity, close - size, close, closed=True)
            for close in range(first_close, self.now_ms + 1, size)
        ]
        running = self.now_ms // size * size
        return [*closed, kline_event(symbol, granularity, running, self.now_ms, closed=False)]

    async def _send_all(self, text: str) -> None:
        for connection in list(self.connections):
            await self._send(connection, text)

    async def _send(self, connection: Connection, text: str) -> None:
        try:
            await connection.send(text)
            connection.sent += 1
        except (ConnectionError, RuntimeError):
            self._forget(connection)  # it has gone

    async def _drop(self) -> None:
        for connection in list(self.connections):
            self._forget(connection)
            await connection.close()

    def _forget(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
