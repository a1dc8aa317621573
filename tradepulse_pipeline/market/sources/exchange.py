"""Candles from exchanges, by ccxt."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from tradepulse_pipeline.errors import (
    HistoryUnavailableError,
    InvalidInputError,
    SourceError,
    one_of,
)
from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.market.series import TIMEFRAMES, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.ahead import ahead
from tradepulse_pipeline.market.sources.base import Offer, Page
from tradepulse_pipeline.market.sources.http import (
    FIRST_CONTACT,
    GuardedHttp,
    Patience,
    Retrying,
    Stop,
    StoppedError,
    TransientError,
)
from tradepulse_pipeline.market.sources.pace import LocalPace, Pace
from tradepulse_pipeline.market.sources.rows import NOT_CLOSED, clean_rows
from tradepulse_pipeline.market.sources.times import iso_utc

T = TypeVar("T")

#: Candles asked for at once where ccxt does not know the exchange's own limit.
DEFAULT_PAGE_SIZE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """What ccxt does not say of an exchange's candles.

    ``latest_only`` is how many of the latest candles are all there is, whatever start is asked for. ``newest_first``
    is true where a reply that is cut loses its oldest candles. ``page_size`` is what to ask for at once, if not as much
    as ccxt believes. ``history`` and ``limits`` are as in :class:`Offer`.
    """

    history: str = "as far back as the exchange's interface gives"
    limits: str = "spot pairs only"
    latest_only: int | None = None
    newest_first: bool = False
    page_size: int | None = None


_LISTED: Final = "since the pair was listed"

VENUES: Final = {
    "binance": Venue(history=_LISTED),
    "bybit": Venue(history=_LISTED, newest_first=True),
    "coinbase": Venue(
        history=_LISTED, newest_first=True, limits="spot pairs only; a span without trades has no candle"
    ),
    # The end of the range counts as inside, which is one candle more than a full page.
    "delta": Venue(
        newest_first=True,
        page_size=1_999,
        limits="spot pairs only, of which it trades few: its contracts count volume in contracts, not in base currency",
    ),
    "kraken": Venue(history="the latest 720 candles of a timeframe", latest_only=720),
    "okx": Venue(history=_LISTED, newest_first=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """What there is in a stretch of time: ``first_ms`` is the first candle found from its start on, be it after it."""

    page: Page
    first_ms: int | None


class ExchangeSource:
    """The spot candles of one exchange, through ccxt's synchronous client, without any key.

    A candle counts as closed by the exchange's clock, not by ours. Volume is what ccxt gives for spot markets, in
    base currency. Kraken gives the latest 720 candles of a timeframe only. Of a longer span several pages are fetched
    at once; they come in the order of time. One source may be used by several threads.

    Parameters
    ----------
    exchange : str
        The exchange's name in ccxt.
    base_url : str or None
        Where to send all requests instead of the exchange's own address: scheme and host.
    patience : Patience
        Attempts, deadlines and waits.
    pace : Pace or None
        The turns of all who ask this exchange; every request takes as much of them as ccxt says that it costs. None:
        this source's own.
    n_threads : int
        How many pages to fetch at once.
    sleep, jitter : callables
        How to wait, and what to draw the waits' randomness from.
    """

    def __init__(
        self,
        exchange: str,
        *,
        base_url: str | None = None,
        patience: Patience | None = None,
        pace: Pace | None = None,
        n_threads: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if n_threads < 1:
            raise InvalidInputError(f"At least one page is fetched at a time, found n_threads={n_threads}.")
        self.name = exchange
        self._base_url = base_url
        self.patience = patience or Patience()
        self._pace = pace or LocalPace()
        self._n_threads = n_threads
        self._retrying = Retrying(name=exchange, sleep=sleep, jitter=jitter, hold=self._pace.hold)
        self._venue = VENUES.get(exchange, Venue())
        self._client: Any = None
        self._client_making, self._client_turn = Lock(), Lock()
        self._idle: deque[Any] = deque()

    @property
    def client(self) -> Any:
        """The ccxt client for markets and the time; made without any request."""
        with self._client_making:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def _new_client(self) -> Any:
        import ccxt

        guarded = type(f"Guarded_{self.name}", (GuardedHttp, getattr(ccxt, self.name)), {})
        client = guarded({"enableRateLimit": True, "options": {"defaultType": "spot"}})
        client.pace, client.stop = self._pace, Stop()
        wanted = client.options.get("fetchMarkets")
        if isinstance(wanted, dict) and "spot" in wanted.get("types", ()):
            wanted["types"] = ["spot"]
        if self._base_url:
            client.urls["api"] = _at(self._base_url, client.urls["api"])
        return client

    @contextmanager
    def _borrowed_client(self, stop: Stop) -> Iterator[Any]:
        """Lend a client to one thread; all of them know the markets that :attr:`client` has loaded."""
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._new_client()
        client.set_markets_from_exchange(self.client)
        client.stop, client.clock_shift_ms = stop, self.client.clock_shift_ms
        yield client
        # After an error it may still be busy with what was given up, and is not lent again.
        self._idle.append(client)

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        return Offer(
            timeframes=tuple(name for name in TIMEFRAMES if name in (self.client.timeframes or {})),
            history=self._venue.history,
            limits=self._venue.limits,
        )

    def check(self, series: SeriesKey) -> None:
        """See :class:`CandleSource`."""
        self._check_timeframe(series.timeframe)
        if self.client.has["fetchTime"]:
            self.now_ms(FIRST_CONTACT)
            self.symbol_of(series, self.patience)
        else:
            self.symbol_of(series, FIRST_CONTACT)

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """See :class:`CandleSource`."""
        self._check_timeframe(series.timeframe)
        symbol = self.symbol_of(series, self.patience)
        step = series.timeframe.milliseconds
        now_ms = self.now_ms(self.patience)
        start, end = -(-start_ms // step) * step, min(end_ms, now_ms // step * step)
        if start >= end:
            return
        stop, is_first = Stop(), True
        try:
            with closing(self._stretches(symbol, series.timeframe, start, end, now_ms, stop)) as stretches:
                for stretch in stretches:
                    page, first_ms = stretch.page, stretch.first_ms
                    if is_first and first_ms is not None and (len(page.candles) or first_ms >= end):
                        is_first = False
                        page = replace(page, warning=self._missing_history(series, start, end, first_ms, now_ms))
                    if len(page.candles) or page.rejected:
                        yield page
        except StoppedError as error:
            raise stop.refusal or error from None
        finally:
            stop.now()

    def _stretches(
        self, symbol: str, timeframe: Timeframe, start: int, end: int, now_ms: int, stop: Stop
    ) -> Generator[_Stretch]:
        """Yield what there is from ``start`` to ``end`` in stretches of one page, several of them fetched at once."""
        length = end - start if self._venue.latest_only else self._page_size(symbol) * timeframe.milliseconds

        def fetch(begin: int) -> _Stretch:
            with self._borrowed_client(stop) as client:
                return self._stretch(client, symbol, timeframe, begin, min(begin + length, end), now_ms)

        first = fetch(start)
        yield first
        begin = start + length
        if first.first_ms is not None:
            begin = max(begin, first.first_ms)
        elif begin < end:
            with self._borrowed_client(stop) as client:
                begin = self._first_day(client, symbol, timeframe, begin, end)
        with closing(ahead(fetch, range(begin, end, length), n_threads=self._n_threads)) as stretches:
            yield from stretches

    def _stretch(self, client: Any, symbol: str, timeframe: Timeframe, begin: int, end: int, now_ms: int) -> _Stretch:
        """Fetch one stretch: on from the last candle, until it is covered or nothing more comes."""
        step = timeframe.milliseconds
        rows, since, first_ms = np.empty((0, 6)), begin, None
        while since < end:
            table = self._rows(client, symbol, timeframe, since)
            times = table[:, 0]
            found = clean_rows(times, table[:, 1:], timeframe, now_ms=now_ms).candles
            if first_ms is None and len(found):
                first_ms = int(found.open_time_ms[0])
            inside = table[times < end]
            if not len(inside):
                break
            # What was asked for again is taken as it came last.
            rows = np.concatenate([rows[rows[:, 0] < since], inside])
            if (times[times <= now_ms] >= end).any():
                break
            valid = found.between(None, end)
            since = valid.end_ms if len(valid) else (int(inside[:, 0].max()) // step + 1) * step
        cleaned = clean_rows(rows[:, 0], rows[:, 1:], timeframe, now_ms=now_ms)
        page = Page(
            candles=cleaned.candles,
            rejected=tuple(row for row in cleaned.rejected if row.reason != NOT_CLOSED),
            n_duplicates=cleaned.n_duplicates,
        )
        return _Stretch(page=page, first_ms=first_ms)

    def _first_day(self, client: Any, symbol: str, timeframe: Timeframe, begin: int, end: int) -> int:
        """Return where candles begin after ``begin``, to the day: its daily candles tell in few requests."""
        day = Timeframe("1d")
        if day.name not in self.offer().timeframes or timeframe == day:
            return begin
        since = begin // day.milliseconds * day.milliseconds
        # The candle of the day that is not over may not be given.
        last = end // day.milliseconds * day.milliseconds - day.milliseconds
        while since <= last:
            rows = self._rows(client, symbol, day, since)
            if len(rows):
                return max(begin, int(rows[:, 0].min()) // day.milliseconds * day.milliseconds)
            since += self._page_size(symbol) * day.milliseconds
        return max(begin, last)

    def _missing_history(self, series: SeriesKey, start: int, end: int, first: int, now_ms: int) -> str:
        """Return the warning for a first candle later than asked for, '' if there is nothing to warn of."""
        step, latest = series.timeframe.milliseconds, self._venue.latest_only
        if first == start:
            return ""
        if latest is None or first < now_ms - (latest + 1) * step:
            return (
                f"{self.name} has no {series.pair} candles from {iso_utc(start)} to {iso_utc(first)}: "
                "its history begins later or has a gap there."
            )
        warning = (
            f"History unavailable beyond {iso_utc(first)}: {self.name} gives only the latest {latest} candles, and "
            f"{series.pair} {series.timeframe} was asked for from {iso_utc(start)}. For the time before, build candles "
            f'from its trades ([source_order] in tradepulse.toml: {self.name} = ["{self.name}", "{self.name}.trades"]) '
            f"or import its archive files: tradepulse import FILE --exchange {self.name} --pair {series.pair} "
            f"--timeframe {series.timeframe}."
        )
        if first >= end:
            raise HistoryUnavailableError(warning)
        return warning

    def _check_timeframe(self, timeframe: Timeframe) -> None:
        offered = self.offer().timeframes
        if timeframe.name not in offered:
            raise one_of("timeframe", timeframe.name, offered, where=self.name)

    def symbol_of(self, series: SeriesKey, patience: Patience) -> str:
        """Return ccxt's name of the pair, if it is traded."""
        spot = self._spot_markets(patience)
        traded = sorted(symbol for symbol, is_traded in spot.items() if is_traded)
        if series.pair in traded:
            return series.pair
        unknown = one_of("pair", series.pair, traded, where=self.name)
        if series.pair in spot:
            raise InvalidInputError(f"{self.name} no longer trades {series.pair}. {unknown}")
        raise unknown

    def traded_pairs(self) -> list[str]:
        """Return the spot pairs that are traded, as ccxt names them: ``BTC/USDT``.

        Raises
        ------
        SourceError
            If the exchange cannot be reached, or fails.
        """
        return sorted(symbol for symbol, is_traded in self._spot_markets(self.patience).items() if is_traded)

    def day_volumes(self, pairs: Sequence[str]) -> dict[str, float | None]:
        """Return what was traded of each pair in the last 24 hours, in quote currency; None where it is not told.

        Raises
        ------
        SourceError
            If the exchange cannot be reached, or fails.
        """
        if not pairs:
            return {}
        client = self.client
        if client.has["fetchTickers"]:
            tickers = self.ask("volumes", lambda: client.fetch_tickers(list(pairs)), self.patience)
        else:
            tickers = {
                pair: self.ask(f"the volume of {pair}", partial(client.fetch_ticker, pair), self.patience)
                for pair in pairs
            }
        return {pair: _day_volume(tickers.get(pair, {})) for pair in pairs}

    def _spot_markets(self, patience: Patience) -> dict[str, bool]:
        """Return ccxt's names of all spot pairs, and whether each is traded."""
        markets = self.ask("its markets", self.client.load_markets, patience)
        return {name: market.get("active") is not False for name, market in markets.items() if market.get("spot")}

    def now_ms(self, patience: Patience) -> int:
        """The exchange's clock; ours where the exchange does not tell the time."""
        ours_ms = time.time_ns() // 1_000_000
        if not self.client.has["fetchTime"]:
            return ours_ms
        told_ms = int(self.ask("the time", self.client.fetch_time, patience))
        self.client.clock_shift_ms = told_ms - ours_ms
        return told_ms

    def ask(self, what: str, request: Callable[[], T], patience: Patience) -> T:
        """Make a request by :attr:`client`, which one thread at a time may use."""
        with self._client_turn:
            self.client.stop = Stop()
            return self._ask(what, self.client, request, patience)

    def _page_size(self, symbol: str) -> int:
        known = self._venue.page_size or self.client.feature_value(symbol, "fetchOHLCV", "limit")
        return int(known or DEFAULT_PAGE_SIZE)

    def _rows(self, client: Any, symbol: str, timeframe: Timeframe, since_ms: int) -> FloatArray:
        """Return a page of rows from ``since_ms`` on; one that is empty has been asked for twice."""
        size, step = self._page_size(symbol), timeframe.milliseconds
        rows = self._reply(client, symbol, timeframe, since_ms, size)
        if not len(rows):
            rows = self._reply(client, symbol, timeframe, since_ms, size)
        while self._venue.newest_first and len(rows):
            first_ms = float(rows[:, 0].min())
            n_missing = int((first_ms - since_ms) // step)
            if not 0 < n_missing < size:
                break
            before = self._reply(client, symbol, timeframe, since_ms, n_missing)
            before = before[before[:, 0] < first_ms]
            if not len(before):
                break
            rows = np.concatenate([before, rows])
        return rows

    def _reply(self, client: Any, symbol: str, timeframe: Timeframe, since_ms: int, limit: int) -> FloatArray:
        def request() -> list[list[float | None]]:
            rows: list[list[float | None]] = client.fetch_ohlcv(symbol, timeframe.name, since=since_ms, limit=limit)
            if not rows and not holds_rows(client.reply):
                raise TransientError(
                    f"{self.name} answered without a list of candles: {str(client.reply)[:120]}", is_answered=True
                )
            return rows

        rows = self._ask(f"{symbol} candles since {iso_utc(since_ms)}", client, request, self.patience)
        return np.array(rows, dtype=np.float64).reshape(-1, 6)

    def _ask(self, what: str, client: Any, request: Callable[[], T], patience: Patience) -> T:
        """Make a request, again where that can help, and say what was tried when it does not.

        What will not help anybody, such as a ban, ends the whole fetch that the client works for.
        """
        client.deadline_s = patience.deadline_s
        return self._retrying.ask(what, lambda: self._attempt(request), patience, on_refusal=client.stop.now)

    def _attempt(self, request: Callable[[], T]) -> T:
        """Make a request once; a failure that may pass is a TransientError, any other a SourceError."""
        import ccxt

        try:
            return request()
        except ccxt.NetworkError as error:
            raise TransientError(str(error), is_answered=True) from error
        except ccxt.BaseError as error:
            raise SourceError(f"{self.name} refuses the request: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # What ccxt stumbles with over JSON that is not what the exchange documents.
            raise TransientError(f"its reply could not be read: {error!r}", is_answered=True) from error


def _at(base_url: str, addresses: Any) -> Any:
    """Return ccxt's addresses, a text or nested mapping of texts, moved to another scheme and host."""
    if isinstance(addresses, dict):
        return {key: _at(base_url, address) for key, address in addresses.items()}
    base, address = urlsplit(base_url), urlsplit(addresses)
    return urlunsplit((base.scheme, base.netloc, address.path, address.query, ""))


def _day_volume(ticker: Mapping[str, Any]) -> float | None:
    """Return a ticker's volume in quote currency, reckoned from that in base currency where it has no other."""
    volume, price = ticker.get("quoteVolume"), ticker.get("vwap") or ticker.get("last")
    if volume is None and ticker.get("baseVolume") is not None and price is not None:
        volume = ticker["baseVolume"] * price
    return None if volume is None or not math.isfinite(volume) else float(volume)


def holds_rows(reply: Any) -> bool:
    """Whether a reply holds a list of rows, be it an empty one, other than Kraken's list of errors."""
    if isinstance(reply, dict):
        return any(holds_rows(part) for key, part in reply.items() if key != "error")
    return isinstance(reply, list) and all(isinstance(row, list | dict) for row in reply)
