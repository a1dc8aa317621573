"""The stand-in exchange's HTTP server."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Market, SeriesKey
from tradepulse_pipeline.market.trades import Trades
from tradepulse_pipeline_tests.loopback.archive import Archive
from tradepulse_pipeline_tests.loopback.bybit import Bybit
from tradepulse_pipeline_tests.loopback.coinbase import Coinbase
from tradepulse_pipeline_tests.loopback.delta import Delta
from tradepulse_pipeline_tests.loopback.faults import Fault
from tradepulse_pipeline_tests.loopback.okx import Okx
from tradepulse_pipeline_tests.loopback.trades import binance_trades, kraken_trades
from tradepulse_pipeline_tests.loopback.venues import Binance, Kraken, Query

HTML = "<!DOCTYPE html><html><body>Down for maintenance</body></html>"


class LoopbackExchange:
    """Serves candles on 127.0.0.1 as exchanges do, until closed; a context manager.

    Parameters
    ----------
    series : mapping of SeriesKey to Candles
        What there is to trade: series of binance and binanceus under /api/v3, those of kraken under /0/public, those
        of bybit, coinbase, delta and okx where these have them; the archive files of binance under /data/spot.
    trades : mapping of Market to Trades
        The single trades of markets that are among the series.
    clock_ms : callable or None
        The exchange's clock; the present if None. Candles later than it do not exist yet, the one at it is running.
    faults : sequence of Fault
        What goes wrong from the beginning; see :meth:`inject`.
    recorded : mapping of path to JSON value or bytes
        Replies to give as they are, such as recorded ones, in place of those made from the candles.
    limit_per_second : int or None
        More requests within a second than this are refused with 429, and counted in ``n_refused``.
    latency_s : float
        How long every reply takes.
    port : int
        0 for any free one.
    """

    def __init__(
        self,
        series: Mapping[SeriesKey, Candles],
        *,
        trades: Mapping[Market, Trades] | None = None,
        clock_ms: Callable[[], int] | None = None,
        faults: Sequence[Fault] = (),
        recorded: Mapping[str, Any] | None = None,
        limit_per_second: int | None = None,
        latency_s: float = 0.0,
        port: int = 0,
    ) -> None:
        self.clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        self.requests: list[str] = []
        self.n_refused = 0
        self.latency_s = latency_s
        self._limit_per_second = limit_per_second
        self._admitted: deque[float] = deque()
        self._series = dict(series)
        self._open_venues()
        self._trades = dict(trades or {})
        self._recorded = dict(recorded or {})
        self._lock = threading.Lock()
        self._faults: list[tuple[Fault, list[int]]] = []
        self.is_closing = threading.Event()
        for fault in faults:
            self.inject(fault)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def _open_venues(self) -> None:
        self._binance, self._kraken = Binance(self._series), Kraken(self._series)
        self._archive = Archive(self._series)
        self._others = [venue(self._series) for venue in (Bybit, Coinbase, Delta, Okx)]

    def replace(self, series: SeriesKey, candles: Candles) -> None:
        """Give other candles from now on: restated ones, more of them, or a series that was not there."""
        self._series = {**self._series, series: candles}
        self._open_venues()

    @property
    def base_url(self) -> str:
        """What to give to a client in place of the exchange's own address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, fault: Fault) -> None:
        """Let something go wrong from now on."""
        with self._lock:
            self._faults.append((fault, [0]))

    def count(self, path: str) -> int:
        """Return how many requests so far had ``path`` in their path."""
        return sum(path in request for request in self.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def admit(self) -> bool:
        """Whether a request is within the limit of the last second; those that are not do not count towards it."""
        with self._lock:
            now = time.monotonic()
            while self._admitted and self._admitted[0] <= now - 1.0:
                self._admitted.popleft()
            if self._limit_per_second is not None and len(self._admitted) >= self._limit_per_second:
                self.n_refused += 1
                return False
            self._admitted.append(now)
            return True

    def strike(self, path: str, query: str) -> Fault | None:
        """Note a request, and return the fault that strikes it."""
        with self._lock:
            self.requests.append(path)
            for fault, n_seen in self._faults:
                if fault.path in path and fault.query in query:
                    n_seen[0] += 1
                    if fault.skip < n_seen[0] <= fault.skip + (fault.times or n_seen[0]):
                        return fault
        return None

    def answer(self, path: str, query: Query, fault: Fault | None) -> tuple[int, Any]:
        """Return status and JSON value, or bytes, of the reply to a request."""
        if path in self._recorded:
            return 200, self._recorded[path]
        now_ms = self.clock_ms()
        match path:
            case "/api/v3/ping":
                return 200, {}
            case "/api/v3/time":
                return 200, self._binance.time(now_ms)
            case "/api/v3/exchangeInfo":
                return 200, self._binance.exchange_info(now_ms)
            case "/api/v3/ticker/24hr":
                return self._binance.tickers(query, now_ms)
            case "/0/public/Ticker":
                return 200, self._kraken.tickers(query, now_ms)
            case "/0/public/Time":
                return 200, self._kraken.time(now_ms)
            case "/0/public/Assets":
                return 200, self._kraken.assets()
            case "/0/public/AssetPairs":
                return 200, self._kraken.asset_pairs()
            case "/api/v3/klines":
                status, reply, rows = self._binance.klines(query, now_ms)
            case "/0/public/OHLC":
                status, reply, rows = self._kraken.ohlc(query, now_ms)
            case "/api/v3/aggTrades":
                status, reply, rows = binance_trades(self._trades, query, now_ms)
            case "/0/public/Trades":
                status, reply, rows = kraken_trades(self._trades, query, now_ms)
            case _ if (file := self._archive.file(path, now_ms)) is not None:
                return 200, file
            case _:
                answers = (venue.answer(path, query, now_ms) for venue in self._others)
                missing: tuple[int, Any, list[Any]] = (404, {"code": -1, "msg": f"No {path} here."}, [])
                status, reply, rows = next(filter(None, answers), missing)
        if fault and fault.changes_rows:
            rows[:] = fault.rows(rows)
        return status, reply


def _handler(exchange: LoopbackExchange) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are written one after the other; the second must not wait for the first's acknowledgement.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            exchange.is_closing.wait(exchange.latency_s)
            fault = exchange.strike(url.path, url.query)
            if not exchange.admit():
                self.reply(429, b'{"msg": "too many requests"}', Retry_After="1")
                return
            status, reply = exchange.answer(url.path, dict(parse_qsl(url.query)), fault)
            body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            if fault is None or fault.changes_rows:
                self.reply(status, body)
            else:
                self.fail(fault, body)

        def fail(self, fault: Fault, body: bytes) -> None:
            match fault.kind:
                case "status":
                    retry_after = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                    self.reply(fault.status, b'{"msg": "no"}', **retry_after)
                case "redirect":
                    self.reply(302, b"", Location=fault.location)
                case "reset":
                    # A linger time of 0 makes close() send RST instead of FIN.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.rfile.close()
                    self.connection.close()
                case "short_body":
                    self.reply(200, body[: len(body) // 2], length=len(body))
                    self.close_connection = True
                case "truncated_json":
                    self.reply(200, body[: len(body) // 2])
                case "html":
                    self.reply(200, HTML.encode(), content_type="text/html")
                case "empty_body":
                    self.reply(200, b"")
                case "other_json":
                    self.reply(200, fault.body.encode())
                case "flipped_byte":
                    middle = len(body) // 2
                    self.reply(200, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])
                case "drip":
                    self.drip(body, fault.seconds)

        def drip(self, body: bytes, seconds: float) -> None:
            self.reply(200, b"", length=len(body))
            for at in range(len(body)):
                if exchange.is_closing.wait(seconds / len(body)):
                    break
                self.wfile.write(body[at : at + 1])
                self.wfile.flush()
            self.close_connection = True

        def reply(
            self,
            status: int,
            body: bytes,
            *,
            content_type: str = "application/json",
            length: int | None = None,
            **headers: str,
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def handle(self) -> None:
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up

        def log_message(self, *_: object) -> None:
            """Say nothing on the terminal: the requests are counted."""

    return Handler
