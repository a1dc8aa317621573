"""The stand-in exchange's live side: Binance's and Kraken's WebSockets, and the REST replies that belong to them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Self

from aiohttp import WSMsgType, web

from tradepulse_pipeline.market.live.book import Book
from tradepulse_pipeline.market.live.events import DepthChanged, Level, Trade
from tradepulse_pipeline.market.series import Market, SeriesKey
from tradepulse_pipeline_tests.loopback.server import LoopbackExchange

#: Levels a side that a subscription to Kraken's book is for.
KRAKEN_DEPTH = 100

#: Decimals of price and amount that Kraken's pairs have here.
DECIMALS = (1, 8)

_KRAKEN_NAMES = {"BTC": "XBT", "DOGE": "XDG"}


class LoopbackSockets:
    """Says on 127.0.0.1 what it is told to say, to whom has subscribed to it; a context manager.

    What is said stays known: trades and the order book are given over REST as well; all other requests are answered
    as ``exchange`` answers them.

    Attributes
    ----------
    is_silent : bool
        Whether connections stay open and nothing is said on them any more.
    is_away : bool
        Whether connections and requests are refused.
    """

    def __init__(self, exchange: LoopbackExchange, port: int = 0) -> None:
        self.is_silent = False
        self.is_away = False
        self.n_connections = 0
        self.n_snapshots = 0
        self.requests: list[str] = []
        self.base_url = ""
        self._exchange = exchange
        self._port = port
        self._trades: defaultdict[Market, list[Trade]] = defaultdict(list)
        self._books: defaultdict[Market, Book] = defaultdict(Book)
        self._last_ids: defaultdict[Market, int] = defaultdict(lambda: 1_000)
        self._faults: list[str] = []
        self._subscribers: defaultdict[str, set[web.WebSocketResponse]] = defaultdict(set)
        self._sockets: set[web.WebSocketResponse] = set()
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def trade(self, market: Market, *trades: Trade) -> None:
        """Let trades happen."""
        for trade in trades:
            self._trades[market].append(trade)
            self._say(_stream(market, "trades"), _trade_message(market, trade))

    def change_depth(self, market: Market, bids: dict[float, float], asks: dict[float, float]) -> None:
        """Let amounts in the order book change."""
        first_id = self._last_ids[market] + 1
        self._last_ids[market] += 3
        change = DepthChanged(
            market=market,
            time_ms=_now_ms(),
            bids=tuple(Level(*level) for level in bids.items()),
            asks=tuple(Level(*level) for level in asks.items()),
            first_id=first_id,
            last_id=self._last_ids[market],
            is_snapshot=not self._books[market].is_whole,
            depth=KRAKEN_DEPTH,
        )
        self._books[market].apply(change)
        self._say(_stream(market, "depth"), self._depth_message(change))

    def candle(self, series: SeriesKey, row: tuple[int, float, float, float, float, float], *, is_closed: bool) -> None:
        """Say what a candle is like now."""
        stream = f"{_stream(series.market, 'candles')}{_interval(series)}"
        self._say(stream, _candle_message(series, row, is_closed))

    def lose_next(self) -> None:
        """Let the next message get lost on the way."""
        self._faults.append("lose")

    def repeat_next(self) -> None:
        """Say the next message twice."""
        self._faults.append("repeat")

    def cut(self) -> None:
        """Cut all connections, without a word of parting."""

        async def cut() -> None:
            for socket in list(self._sockets):
                if socket._req is not None and socket._req.transport is not None:
                    socket._req.transport.abort()
            self._subscribers.clear()

        self._run(cut())

    def wait_for_subscribers(self, series: SeriesKey, *channels: str) -> None:
        """Wait until somebody listens to all of ``channels``."""
        deadline = time.monotonic() + 20
        for channel in channels:
            stream = _stream(series.market, channel) + (_interval(series) if channel == "candles" else "")
            while not self._subscribers[stream]:
                assert time.monotonic() < deadline, f"nobody has subscribed to {channel} of {series}"
                time.sleep(0.01)

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=20)

    def _say(self, stream: str, message: Any) -> None:
        fault = self._faults.pop(0) if self._faults else ""
        if self.is_silent or fault == "lose":
            return

        async def say() -> None:
            for socket in list(self._subscribers[stream]):
                for _ in range(2 if fault == "repeat" else 1):
                    if not socket.closed:
                        await socket.send_str(json.dumps(message))

        self._run(say())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application()
        application.add_routes(
            [
                web.get("/ws/{number}", self._binance),
                web.get("/v2", self._kraken),
                web.get("/{path:.*}", self._rest),
            ]
        )
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._ended.wait()
        for socket in list(self._sockets):
            await socket.close()
        await runner.cleanup()

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        if self.is_away:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        self.n_connections += 1
        return socket

    def _leave(self, socket: web.WebSocketResponse) -> None:
        self._sockets.discard(socket)
        for subscribers in self._subscribers.values():
            subscribers.discard(socket)

    async def _binance(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._accept(request)
        async for received in socket:
            if received.type is WSMsgType.TEXT:
                asked = json.loads(received.data)
                for stream in asked["params"]:
                    self._subscribers[stream].add(socket)
                await socket.send_json({"result": None, "id": asked["id"]})
        self._leave(socket)
        return socket

    async def _kraken(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._accept(request)
        async for received in socket:
            if received.type is WSMsgType.TEXT:
                asked = json.loads(received.data)
                if asked["method"] == "ping":
                    await socket.send_json({"method": "pong"})
                else:
                    await self._subscribe_to_kraken(socket, asked["params"])
        self._leave(socket)
        return socket

    async def _subscribe_to_kraken(self, socket: web.WebSocketResponse, wanted: dict[str, Any]) -> None:
        for symbol in wanted["symbol"]:
            market = Market.parse("kraken", symbol)
            channel = {"trade": "trades", "book": "depth", "ohlc": "candles"}[wanted["channel"]]
            await socket.send_json({"method": "subscribe", "success": True, "result": {**wanted, "symbol": symbol}})
            self._subscribers[f"{_stream(market, channel)}{wanted.get('interval', '')}"].add(socket)
            book = self._books[market]
            if channel == "depth" and book.is_whole:
                self.n_snapshots += 1
                whole = DepthChanged(
                    market=market, time_ms=_now_ms(), bids=tuple(book.bids()), asks=tuple(book.asks()), is_snapshot=True
                )
                await socket.send_json(self._depth_message(whole))

    async def _rest(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.requests.append(request.path)
        if self.is_away:
            raise web.HTTPServiceUnavailable
        match request.path:
            case "/api/v3/depth":
                self.n_snapshots += 1
                market = self._market("binance", query["symbol"])
                sides = {"bids": self._books[market].bids(), "asks": self._books[market].asks()}
                return web.json_response(
                    {
                        "lastUpdateId": self._last_ids[market],
                        **{name: [[repr(value) for value in level] for level in side] for name, side in sides.items()},
                    }
                )
            case "/api/v3/aggTrades":
                trades = self._trades[self._market("binance", query["symbol"])]
                wanted = [trade for trade in trades if trade.trade_id >= int(query["fromId"])][: int(query["limit"])]
                return web.json_response([_binance_trade(trade) for trade in wanted])
            case "/0/public/Trades":
                trades = self._trades[self._market("kraken", query["pair"])]
                wanted = [trade for trade in trades if trade.time_ms * 1_000_000 > int(query["since"])][:1000]
                rows = [_kraken_row(trade) for trade in wanted]
                last = str(wanted[-1].time_ms * 1_000_000 if wanted else query["since"])
                return web.json_response({"error": [], "result": {query["pair"]: rows, "last": last}})
        status, reply = self._exchange.answer(request.path, query, None)
        return web.json_response(reply, status=status)

    def _market(self, exchange: str, symbol: str) -> Market:
        return next(
            market
            for market in (*self._trades, *self._books)
            if market.exchange == exchange
            and symbol in (market.base + market.quote, _KRAKEN_NAMES.get(market.base, market.base) + market.quote)
        )

    def _depth_message(self, change: DepthChanged) -> Any:
        sides = {"bids": change.bids, "asks": change.asks}
        if change.market.exchange == "kraken":
            entry = {
                "symbol": change.market.pair,
                **{name: [{"price": price, "qty": qty} for price, qty in levels] for name, levels in sides.items()},
                "checksum": self._books[change.market].checksum(*DECIMALS),
                "timestamp": _iso(change.time_ms),
            }
            return {"channel": "book", "type": "snapshot" if change.is_snapshot else "update", "data": [entry]}
        return {
            "e": "depthUpdate",
            "E": change.time_ms,
            "s": change.market.base + change.market.quote,
            "U": change.first_id,
            "u": change.last_id,
            "b": [[repr(price), repr(qty)] for price, qty in change.bids],
            "a": [[repr(price), repr(qty)] for price, qty in change.asks],
        }


def _stream(market: Market, channel: str) -> str:
    if market.exchange == "kraken":
        return f"{channel} {market.pair} "
    kind = {"trades": "aggTrade", "depth": "depth@100ms", "candles": "kline_"}[channel]
    return f"{(market.base + market.quote).lower()}@{kind}"


def _interval(series: SeriesKey) -> str:
    return str(series.timeframe.minutes) if series.exchange == "kraken" else series.timeframe.name


def _binance_trade(trade: Trade) -> dict[str, Any]:
    return {
        "a": trade.trade_id,
        "p": repr(trade.price),
        "q": repr(trade.amount),
        "f": trade.trade_id,
        "l": trade.trade_id,
        "T": trade.time_ms,
        "m": trade.side < 0,
        "M": True,
    }


def _kraken_row(trade: Trade) -> list[Any]:
    side = "b" if trade.side > 0 else "s"
    return [repr(trade.price), repr(trade.amount), trade.time_ms / 1000, side, "l", "", trade.trade_id]


def _trade_message(market: Market, trade: Trade) -> Any:
    if market.exchange == "kraken":
        entry = {
            "symbol": market.pair,
            "side": "buy" if trade.side > 0 else "sell",
            "price": trade.price,
            "qty": trade.amount,
            "ord_type": "limit",
            "trade_id": trade.trade_id,
            "timestamp": _iso(trade.time_ms),
        }
        return {"channel": "trade", "type": "update", "data": [entry]}
    return {"e": "aggTrade", "E": trade.time_ms, "s": market.base + market.quote, **_binance_trade(trade)}


def _candle_message(series: SeriesKey, row: tuple[int, float, float, float, float, float], is_closed: bool) -> Any:
    values = dict(zip(("open", "high", "low", "close", "volume"), row[1:], strict=True))
    if series.exchange == "kraken":
        entry = {
            "symbol": series.pair,
            **values,
            "trades": 1,
            "vwap": row[4],
            "interval_begin": _iso(row[0]),
            "interval": series.timeframe.minutes,
            "timestamp": _iso(row[0] + series.timeframe.milliseconds),
        }
        return {"channel": "ohlc", "type": "update", "timestamp": _iso(_now_ms()), "data": [entry]}
    symbol = series.market.base + series.market.quote
    kline = {
        "t": row[0],
        "T": row[0] + series.timeframe.milliseconds - 1,
        "s": symbol,
        "i": series.timeframe.name,
        **{name[0]: repr(value) for name, value in values.items()},
        "n": 1,
        "x": is_closed,
    }
    return {"e": "kline", "E": _now_ms(), "s": symbol, "k": kline}


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
