"""The live feed and the recorder, through the real ccxt.pro client, against an exchange that misbehaves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError, SourceUnreachableError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.live import feed
from tradepulse_pipeline.market.live.events import CHANNELS, DepthChanged, Trade
from tradepulse_pipeline.market.live.feed import FeedSettings, LiveFeed
from tradepulse_pipeline.market.live.recorder import Counters, Key, Recorder, RecorderSettings
from tradepulse_pipeline.market.live.sequence import Run
from tradepulse_pipeline.market.live.session import record_live
from tradepulse_pipeline.market.series import Market, SeriesKey
from tradepulse_pipeline.market.sources.rows import CleanedRows
from tradepulse_pipeline.market.trades import NO_ID, Trades
from tradepulse_pipeline_tests.loopback import LoopbackExchange
from tradepulse_pipeline_tests.loopback.sockets import LoopbackSockets

START = 1_700_000_040_000
SERIES = {name: SeriesKey.of(name, "BTC/USDT", "1m") for name in ("binance", "kraken")}
IMPATIENT = FeedSettings(first_wait_s=0.05, longest_wait_s=0.2)


class MemorySink:
    """Keeps a recording in lists."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.depth: list[DepthChanged] = []
        self.open_times: list[int] = []

    def stored(self, market: Market, channel: str, key: Key) -> list[Run]:
        return (
            [Run(trade.trade_id, trade.trade_id) for trade in self.trades] if (channel, key) == ("trades", "id") else []
        )

    def time_of_trade(self, market: Market, trade_id: int) -> int | None:
        return max((trade.time_ms for trade in self.trades if trade.trade_id <= trade_id), default=None)

    def write_trades(self, market: Market, trades: Trades, key: Key, run: Run) -> None:
        columns = (trades.trade_id, trades.time_ms, trades.price, trades.amount, trades.side)
        self.trades += [Trade._make(row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def write_depth(self, market: Market, changes: Sequence[DepthChanged]) -> None:
        self.depth += changes

    def last_candle(self, series: SeriesKey) -> int | None:
        return max(self.open_times, default=None)

    def write_candles(self, series: SeriesKey, cleaned: CleanedRows) -> None:
        self.open_times += cleaned.candles.open_time_ms.tolist()


class Session:
    """A recorder that runs in a thread until ``stop``."""

    def __init__(
        self, sockets: LoopbackSockets, series: SeriesKey, sink: MemorySink, channels=CHANNELS, settings=IMPATIENT
    ) -> None:
        self.sink = sink
        self.filled: list[tuple[int, int]] = []
        self.recorder = Recorder(sink, RecorderSettings(flush_seconds=0.05))
        self._market = series.market
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._done: Future[None] = self._pool.submit(
            asyncio.run, self._record(sockets.base_url, series, channels, settings)
        )

    @property
    def counters(self) -> Counters:
        return self.recorder.counters[self._market]

    async def _record(self, base_url, series, channels, settings) -> None:
        live = LiveFeed([series.market], series.timeframe, channels, base_url=base_url, settings=settings)

        live._client.enableRateLimit = False  # Kraken's would take seconds

        def fill(series: SeriesKey, start_ms: int, end_ms: int) -> int:
            self.filled.append((start_ms, end_ms))
            return (end_ms - start_ms) // series.timeframe.milliseconds

        await record_live(live, self.recorder, fill, is_over=self._over.is_set)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            if self._done.done():
                self._done.result()
            assert time.monotonic() < deadline, f"never came true; {self.counters}"
            time.sleep(0.01)

    def stop(self) -> None:
        self._over.set()
        self._done.result(timeout=20)
        self._pool.shutdown()


def trades(first: int, n: int) -> list[Trade]:
    return [
        Trade(number, START + 50 * number, 100.0 + number % 7, 0.5, 1 - 2 * (number % 2))
        for number in range(first, first + n)
    ]


def row(minute: int) -> tuple[int, float, float, float, float, float]:
    return (START + 60_000 * minute, 100.0, 102.0, 99.0, 101.0, 5.0)


@pytest.fixture(params=["binance", "kraken"])
def series(request: pytest.FixtureRequest) -> SeriesKey:
    return SERIES[request.param]


@pytest.fixture
def sockets() -> Iterator[LoopbackSockets]:
    """An exchange with an order book."""
    flat = np.full(2, 100.0)
    candles = {
        key: Candles.from_arrays(key.timeframe, START + 60_000 * np.arange(2), flat, flat, flat, flat, flat)
        for key in SERIES.values()
    }
    with LoopbackExchange(candles) as exchange, LoopbackSockets(exchange) as sockets:
        for key in SERIES.values():
            sockets.change_depth(
                key.market, {100.0 - n: 1.0 + n for n in range(20)}, {101.0 + n: 2.0 for n in range(20)}
            )
        yield sockets


@pytest.fixture
def start(sockets: LoopbackSockets, series: SeriesKey) -> Iterator[Callable[..., Session]]:
    started: list[Session] = []

    def start_session(sink: MemorySink | None = None, channels=CHANNELS, settings=IMPATIENT) -> Session:
        started.append(Session(sockets, series, sink or MemorySink(), channels, settings))
        sockets.wait_for_subscribers(series, *channels)
        return started[-1]

    yield start_session
    for session in started:
        if not session._done.done():
            session.stop()


def test_everything_that_is_said_arrives(sockets, series, start):
    session = start()
    session.wait(lambda: session.counters.has_book)
    sockets.trade(series.market, *trades(1, 20))
    for n in range(5):
        sockets.change_depth(series.market, {99.0: 3.0 + n}, {105.0: 0.0, 106.0: 4.0 + n})
    for minute in range(3):
        sockets.candle(series, row(minute), is_closed=False)
        sockets.candle(series, row(minute), is_closed=True)
    sockets.candle(series, row(3), is_closed=False)
    session.wait(lambda: session.counters.events >= 20 + 6 + 3)
    session.stop()
    assert session.sink.trades == trades(1, 20)
    assert session.sink.open_times == [row(minute)[0] for minute in range(3)]
    assert [change.is_snapshot for change in session.sink.depth].count(True) == 1
    assert (session.counters.breaks, session.counters.repeated, session.counters.interruptions) == (0, 0, 0)


def test_after_a_cut_what_was_missed_is_fetched_and_nothing_comes_twice(sockets, series, start):
    session = start()
    session.wait(lambda: session.counters.has_book)
    sockets.trade(series.market, *trades(1, 10))
    sockets.candle(series, row(0), is_closed=True)
    sockets.candle(series, row(1), is_closed=False)
    session.wait(lambda: session.counters.trades == 10)
    sockets.cut()
    sockets.trade(series.market, *trades(11, 10))
    sockets.candle(series, row(1), is_closed=True)
    sockets.wait_for_subscribers(series, *CHANNELS)
    session.wait(lambda: sum(change.is_snapshot for change in session.sink.depth) == 2)
    sockets.trade(series.market, *trades(21, 5))
    for minute in (2, 3, 4):
        sockets.candle(series, row(minute), is_closed=True)
    session.wait(lambda: len(session.sink.trades) == 25 and bool(session.filled))
    session.stop()
    assert sorted(session.sink.trades) == trades(1, 25)
    counters = session.counters
    assert (counters.backfilled_trades, counters.missing_trades) == (10, 0)
    assert counters.interruptions >= 1
    assert session.filled == [(row(1)[0], row(2)[0])]
    assert counters.backfilled_candles == 1


def test_a_lost_trade_is_noticed_and_fetched(sockets, series, start):
    session = start(channels=("trades",))
    sockets.trade(series.market, *trades(1, 5))
    sockets.lose_next()
    sockets.trade(series.market, *trades(6, 5))
    session.wait(lambda: len(session.sink.trades) == 10)
    session.stop()
    assert sorted(session.sink.trades) == trades(1, 10)
    counters = session.counters
    assert (counters.breaks, counters.backfilled_trades, counters.interruptions) == (1, 1, 0)


def test_a_repeated_trade_is_kept_once(sockets, series, start):
    session = start(channels=("trades",))
    sockets.trade(series.market, *trades(1, 5))
    sockets.repeat_next()
    sockets.trade(series.market, *trades(6, 5))
    session.wait(lambda: len(session.sink.trades) == 10)
    session.stop()
    assert session.sink.trades == trades(1, 10)
    assert (session.counters.repeated, session.counters.breaks) == (1, 0)


def test_a_lost_change_of_the_book_brings_a_new_snapshot(sockets, series, start):
    session = start(channels=("depth",))
    session.wait(lambda: session.counters.has_book)
    sockets.change_depth(series.market, {99.0: 7.0}, {})
    sockets.lose_next()
    sockets.change_depth(series.market, {98.0: 7.0}, {})
    sockets.change_depth(series.market, {97.0: 7.0}, {})
    session.wait(lambda: sum(change.is_snapshot for change in session.sink.depth) == 2)
    session.stop()
    assert session.counters.breaks == 1


def test_a_feed_that_falls_silent_is_taken_up_again(sockets, series, start):
    session = start(channels=("trades",), settings=replace(IMPATIENT, silence_s=0.8))
    sockets.trade(series.market, *trades(1, 3))
    session.wait(lambda: session.counters.trades == 3)
    sockets.is_silent = True
    sockets.trade(series.market, *trades(4, 3))
    session.wait(lambda: session.counters.interruptions == 1)
    sockets.is_silent = False
    session.wait(lambda: sockets.n_connections == 2)
    sockets.wait_for_subscribers(series, "trades")
    time.sleep(0.1)
    sockets.trade(series.market, *trades(7, 3))
    session.wait(lambda: len(session.sink.trades) == 9)
    session.stop()
    assert sorted(session.sink.trades) == trades(1, 9)


def test_an_exchange_that_goes_away_is_waited_for(sockets, series, start):
    session = start(channels=("trades",))
    sockets.trade(series.market, *trades(1, 3))
    session.wait(lambda: session.counters.trades == 3)
    sockets.is_away = True
    sockets.cut()
    sockets.trade(series.market, *trades(4, 3))
    session.wait(lambda: session.counters.interruptions >= 2)
    sockets.is_away = False
    sockets.wait_for_subscribers(series, "trades")
    sockets.trade(series.market, *trades(7, 3))
    session.wait(lambda: len(session.sink.trades) == 9)
    session.stop()
    assert sorted(session.sink.trades) == trades(1, 9)


def test_a_second_session_goes_on_where_the_first_one_stopped(sockets, series, start):
    first = start(channels=("trades",))
    sockets.trade(series.market, *trades(1, 5))
    first.wait(lambda: first.counters.trades == 5)
    first.stop()
    sockets.trade(series.market, *trades(6, 5))
    sockets._subscribers.clear()
    second = start(first.sink, channels=("trades",))
    sockets.trade(series.market, *trades(11, 5))
    second.wait(lambda: len(second.sink.trades) == 15)
    second.stop()
    assert sorted(second.sink.trades) == trades(1, 15)
    assert second.counters.backfilled_trades == 5


@pytest.mark.parametrize("series", [SERIES["binance"]])
def test_other_exchanges_are_recorded_by_what_ccxt_makes_of_their_messages(sockets, series, start, monkeypatch):
    monkeypatch.setattr(feed, "_READ_RAW", ("kraken",))
    session = start(channels=("trades", "candles"))
    sockets.trade(series.market, *trades(1, 5), *trades(8, 2))
    for minute in range(3):
        sockets.candle(series, row(minute), is_closed=False)
    session.wait(lambda: session.counters.events == 7 + 2)
    session.stop()
    assert session.sink.trades == [trade._replace(trade_id=NO_ID) for trade in (*trades(1, 5), *trades(8, 2))]
    assert session.sink.open_times == [row(0)[0], row(1)[0]]
    assert session.counters.breaks == 0


def test_a_message_that_cannot_be_read_is_an_interruption(sockets, series, start):
    session = start(channels=("trades",))
    sockets.trade(series.market, *trades(1, 3))
    session.wait(lambda: session.counters.trades == 3)
    sockets.trade(series.market, trades(4, 1)[0]._replace(price="cheap"))
    session.wait(lambda: session.counters.interruptions == 1)
    session.stop()
    assert session.sink.trades == trades(1, 3)


def test_an_exchange_that_is_not_there_is_told_plainly(sockets):
    sockets.is_away = True
    session = Session(sockets, SERIES["binance"], MemorySink())
    with pytest.raises(SourceUnreachableError, match="binance cannot be reached"):
        session._done.result(timeout=20)
    session._pool.shutdown()


def test_what_cannot_be_recorded_is_refused():
    okx = SeriesKey.of("okx", "BTC/USDT", "1m")
    with pytest.raises(InvalidInputError, match="okx: depth cannot be recorded live"):
        LiveFeed([okx.market], okx.timeframe)
    with pytest.raises(InvalidInputError, match=r"Unknown exchange 'krakn' in ccxt\.pro\. Did you mean 'kraken'"):
        LiveFeed([Market.parse("krakn", "BTC/USDT")], okx.timeframe)
